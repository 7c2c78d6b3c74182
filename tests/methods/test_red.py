"""RED against closed forms: identity, gradients, dtype, detach, fold, and the paper's parameter counts."""

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoConfig,
    AutoModel,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from red_lightning import RED, RepresentationEditor
from red_lightning.editing.sites import find_sites
from red_lightning.errors import UsageError
from red_lightning.families import SITES
from red_lightning.methods import RED_PLUS_SITES
from tests.backbones_zoo import FAMILIES, LACKING, build

INPUT = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def run(model: nn.Module) -> torch.Tensor:
    extra = {"decoder_input_ids": INPUT} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=INPUT, **extra)[0]


def randomise(parameters: dict[str, nn.Parameter], seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def present(family: str, model: nn.Module, sites: list[str]) -> list[str]:
    """Those of the sites that the family has; asking for the others is refused, and nothing changes."""
    lacking = [site for site in sites if site in LACKING.get(family, ())]
    if lacking:
        sentence = rf"^[\w-]+ has no site '{lacking[0]}'; it has ffn, attention, residual$"
        with pytest.raises(UsageError, match=sentence):
            RED(sites).apply(model)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())
    return [site for site in sites if site not in lacking]


def test_editor_is_the_papers_equation() -> None:
    editor = RepresentationEditor(3)
    editor.scaling.data = torch.tensor([2.0, 1.0, -1.0])
    editor.bias.data = torch.tensor([0.5, 0.0, 1.0])
    hidden = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    edited = editor(hidden)
    assert edited.tolist() == [[2.5, 2.0, -2.0]]
    edited.sum().backward()
    assert editor.scaling.grad.tolist() == [1.0, 2.0, 3.0]  # the gradient of s is h1
    assert editor.bias.grad.tolist() == [1.0, 1.0, 1.0]
    assert hidden.grad.tolist() == [[2.0, 1.0, -1.0]]


@pytest.mark.parametrize(("scaling", "bias"), [(True, False), (False, True)])
def test_either_vector_can_be_left_out(scaling: bool, bias: bool) -> None:
    editor = RepresentationEditor(4, scaling, bias)
    assert [name for name, _ in editor.named_parameters()] == (["scaling"] if scaling else ["bias"])
    for parameter in editor.parameters():
        parameter.data += 2
    assert editor(torch.ones(1, 4)).tolist() == [[3.0] * 4]


def test_editor_of_some_columns_leaves_the_others_alone() -> None:
    editor = RepresentationEditor(6, columns=[(0, 2), (4, 6)])
    assert editor.scaling.shape == (4,)
    editor.scaling.data = torch.tensor([2.0, 3.0, 4.0, 5.0])
    editor.bias.data = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert editor(torch.ones(1, 6)).tolist() == [[3.0, 3.0, 1.0, 1.0, 4.0, 6.0]]


def test_a_small_scaling_changes_a_bfloat16_output() -> None:
    editor = RepresentationEditor(512).bfloat16()
    assert editor.scaling.dtype == torch.float32  # 1.002 is 1.0 in bfloat16
    editor.scaling.data.fill_(1.002)
    hidden = torch.linspace(1, 2, 512).bfloat16()
    edited = editor(hidden)
    assert edited.dtype == torch.bfloat16
    assert torch.equal(edited, (hidden.float() * 1.002).bfloat16())
    assert (edited != hidden).any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vectors", ["both", "scaling", "bias"])
@pytest.mark.parametrize("sites", [["ffn"], ["residual"], ["query", "value"], RED_PLUS_SITES])
def test_identity_then_edit_then_detach(family: str, vectors: str, sites: list[str]) -> None:
    model = build(family)
    if not (sites := present(family, model, sites)):
        return
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = run(model)
    red = RED(sites, vectors)
    parameters = red.apply(model)
    assert torch.equal(run(model), plain)  # ones and zeros change no bit
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(parameters)
    randomise(parameters)
    assert not torch.allclose(run(model), plain, atol=1e-3)
    red.detach(model)
    assert torch.equal(run(model), plain)
    assert set(model.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vectors", ["both", "scaling", "bias"])
@pytest.mark.parametrize("sites", [["ffn"], ["query"], RED_PLUS_SITES])
def test_fold_gives_the_edited_outputs(family: str, vectors: str, sites: list[str]) -> None:
    model = build(family)
    if not (sites := present(family, model, sites)):
        return
    red = RED(sites, vectors)
    randomise(red.apply(model))
    edited = run(model)
    red.fold(model)
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(run(model), edited, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_fold_into_16_bit_weights_keeps_the_stated_tolerance(dtype: torch.dtype, tolerance: float) -> None:
    model = build("gpt2").to(dtype)
    weight = model.transformer.h[0].mlp.c_proj.weight.detach().float()
    red = RED()
    parameters = red.apply(model)
    randomise(parameters)
    scaling = parameters["transformer.h.0.mlp.c_proj.editor.scaling"].detach()
    red.fold(model)
    folded = model.transformer.h[0].mlp.c_proj.weight
    assert folded.dtype == dtype
    torch.testing.assert_close(folded.float(), weight * scaling, atol=1e-7, rtol=tolerance)


def test_a_residual_edit_refuses_to_fold_and_nothing_changes() -> None:
    model = build("gpt2")
    red = RED(["ffn", "residual"])
    randomise(red.apply(model))
    edited = run(model)
    with pytest.raises(UsageError, match="cannot be merged"):
        red.fold(model)
    assert torch.equal(run(model), edited)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_sites_of_a_family_are_one(family: str) -> None:
    model = build(family, layers=3)
    names = present(family, model, list(SITES))
    found = {name: {(site.module, site.columns) for site in find_sites(model, [name])} for name in names}
    blocks = {"t5": 6, "albert": 1}.get(family, 3)
    assert {name: len(sites) for name, sites in found.items()} == {
        name: 9 if (family, name) == ("t5", "attention") else blocks  # T5's decoder has cross-attention too
        for name in names
    }
    assert len(set().union(*found.values())) == sum(map(len, found.values()))


FUSED = [("gpt2", "transformer.h.0.attn.c_attn"), ("modernbert", "layers.0.attn.Wqkv")]


@pytest.mark.parametrize(("family", "fused"), FUSED)
def test_query_of_a_fused_projection_edits_that_third(family: str, fused: str) -> None:
    model = build(family)
    parameters = RED(["query"]).apply(model)
    assert {tuple(p.shape) for p in parameters.values()} == {(32,)}
    randomise(parameters)
    captured = {}
    attention = model.get_submodule(fused)
    attention.register_forward_hook(lambda module, args, output: captured.update(x=args[0], h=output))
    run(model)
    plain = attention.forward(captured["x"])
    changed = (captured["h"] != plain).flatten(0, 1).any(0)
    assert changed[:32].all() and not changed[32:].any()


@pytest.mark.parametrize("family", [family for family, _ in FUSED])
def test_thirds_of_a_fused_projection_act_as_query_key_and_value(family: str) -> None:
    """Scores are products of queries and keys, and a query serves its own token only."""
    model = build(family, layers=1)
    plain, outputs, reach = run(model), {}, {}
    for site in ("query", "key", "value"):
        red = RED([site], "scaling")
        for parameter in red.apply(model).values():
            parameter.data.fill_(1.5)
        outputs[site] = run(model)
        red.detach(model)

        (found,) = find_sites(model, [site])
        assert found.columns is not None
        ((start, stop),) = found.columns

        def double(module: nn.Module, args: object, output: torch.Tensor, columns: slice = slice(start, stop)) -> None:
            output[:, 1, columns] *= 2  # of the second token

        handle = model.get_submodule(found.module).register_forward_hook(double)
        changed = ~torch.isclose(run(model), plain, atol=1e-6).all(-1).all(0)
        reach[site] = changed.nonzero().flatten().tolist()
        handle.remove()
    torch.testing.assert_close(outputs["query"], outputs["key"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs["query"], outputs["value"], atol=1e-3)
    assert not torch.allclose(outputs["query"], plain, atol=1e-3)
    everyone = [1, 2, 3] if family == "gpt2" else [0, 1, 2, 3]  # GPT-2 looks back only
    assert reach == {"query": [1], "key": everyone, "value": everyone}


def test_an_edit_of_a_shared_block_acts_at_every_pass() -> None:
    model = build("albert", layers=3)
    red = RED()
    parameters = red.apply(model)
    name = "encoder.albert_layer_groups.0.albert_layers.0.ffn_output"
    assert sorted(parameters) == [f"{name}.editor.bias", f"{name}.editor.scaling"]
    randomise(parameters)
    bias, scaling = (parameters[key].detach() for key in sorted(parameters))
    edited = run(model)
    red.detach(model)

    def by_hand(passes: set[int]) -> torch.Tensor:
        count = iter(range(3))
        handle = model.get_submodule(name).register_forward_hook(
            lambda module, args, output: output * scaling + bias if next(count) in passes else output
        )
        output = run(model)
        handle.remove()
        assert next(count, None) is None  # there were three passes
        return output

    torch.testing.assert_close(by_hand({0, 1, 2}), edited, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(by_hand({0}), edited, atol=1e-3)


def test_layers_of_albert_are_its_hidden_groups() -> None:
    config = AlbertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=20, embedding_size=4)
    config.update({"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2})
    names = RED(layers=[-1], vectors="bias").apply(AlbertModel(config))
    assert sorted(names) == [
        f"encoder.albert_layer_groups.1.albert_layers.{inner}.ffn_output.editor.bias" for inner in (0, 1)
    ]


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_copies_and_pickles_apply_their_own_editors(family: str) -> None:
    model = build(family)
    parameters = RED().apply(model)
    randomise(parameters)
    edited = run(model)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for parameter in parameters.values():
        parameter.data.zero_()
    for twin in twins:
        assert torch.equal(run(twin), edited)


def test_layers_can_be_chosen() -> None:
    model = build("t5", layers=3)
    names = RED(layers=[0, -1], vectors="bias").apply(model)
    assert sorted({name.split(".editor")[0] for name in names}) == [
        f"{stack}.block.{layer}.layer.{ffn}.DenseReluDense.wo"
        for stack, ffn in (("decoder", 2), ("encoder", 1))
        for layer in (0, 2)
    ]


def test_sites_by_hand_work_for_any_model() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5)))
    parameters = RED(["2.*"]).apply(model)
    assert {name: p.shape[0] for name, p in parameters.items() if name.endswith("bias")} == {
        "2.0.editor.bias": 5,
        "2.1.editor.bias": 5,
    }


@pytest.mark.parametrize(
    ("sites", "options", "sentence"),
    [
        (["fnn"], {}, "unknown site 'fnn': did you mean 'ffn'?"),
        ([], {}, "no sites are given"),
        (["*.mlp.down_proj"], {}, "no module matches the site pattern"),
        (["ffn"], {"layers": [7]}, r"layers \[7\] do not exist"),
        (["ffn"], {"layers": []}, "nothing would be edited"),
    ],
)
def test_bad_sites_get_one_sentence(sites: list[str], options: dict, sentence: str) -> None:
    model = build("gpt2")
    with pytest.raises(UsageError, match=sentence) as raised:
        RED(sites, **options).apply(model)
    assert "\n" not in str(raised.value)
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_vectors_and_families_get_one_sentence() -> None:
    with pytest.raises(UsageError, match="unknown vectors 'scale'"):
        RED(vectors="scale")  # type: ignore[arg-type]
    model = build("gpt2")
    model.config.model_type = "mamba"
    sentence = r"its blocks have no FFN.*families known: RoBERTa, .*\); .*sites: \["
    with pytest.raises(UsageError, match=sentence):
        RED().apply(model)


def test_editing_twice_is_refused() -> None:
    model = build("gpt2")
    RED().apply(model)
    with pytest.raises(UsageError, match="edited already"):
        RED().apply(model)


REAL = {
    "roberta-base": RobertaConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
    "roberta-large": RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "t5-base": T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12),
    "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "llama-2-7b": LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32),
    "mistral-7b": MistralConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336
    ),
    "qwen2.5-0.5b": Qwen2Config(
        hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864
    ),
    "gemma-2b": GemmaConfig(
        hidden_size=2048,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        intermediate_size=16384,
    ),
    "phi-2": PhiConfig(
        hidden_size=2560,
        num_hidden_layers=32,
        num_attention_heads=32,
        intermediate_size=10240,
        pad_token_id=0,  # transformers 5.0 has no default
    ),
    "opt-125m": OPTConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, ffn_dim=3072, word_embed_proj_dim=768
    ),
    "pythia-410m": GPTNeoXConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "distilbert-base": DistilBertConfig(dim=768, n_layers=6, n_heads=12, hidden_dim=3072),
    "deberta-v3-base": DebertaV2Config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        relative_attention=True,
        position_buckets=256,
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        norm_rel_ebd="layer_norm",
    ),
    "albert-base": AlbertConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "electra-base": ElectraConfig(
        embedding_size=768, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    ),
    "xlm-roberta-base": XLMRobertaConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
    "modernbert-base": ModernBertConfig(
        hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152
    ),
}


@pytest.mark.parametrize(
    ("name", "sites", "count"),
    [
        ("roberta-base", ["ffn"], 18_432),  # Table 1: 0.02M
        ("roberta-large", ["ffn"], 49_152),  # Table 1: 0.05M
        ("t5-base", ["ffn"], 36_864),  # Table 3: 0.04M
        ("gpt2-medium", ["ffn"], 49_152),  # Table 2: 0.05M
        ("gpt2-large", ["ffn"], 92_160),  # Table 2: 0.09M
        ("llama-2-7b", ["ffn"], 262_144),  # Table 4: 0.26M
        ("mistral-7b", ["ffn"], 262_144),  # 32 x 2 x 4096
        ("qwen2.5-0.5b", ["ffn"], 43_008),  # 24 x 2 x 896
        ("gemma-2b", ["ffn"], 18 * 2 * 2048),
        ("phi-2", ["ffn"], 32 * 2 * 2560),
        ("opt-125m", ["ffn"], 12 * 2 * 768),
        ("pythia-410m", ["ffn"], 24 * 2 * 1024),
        ("mistral-7b", RED_PLUS_SITES, 32 * 2 * (3 * 4096 + 2 * 1024)),  # narrow keys and values
        ("qwen2.5-0.5b", RED_PLUS_SITES, 24 * 2 * (3 * 896 + 2 * 128)),
        ("gemma-2b", RED_PLUS_SITES, 18 * 2 * (3 * 2048 + 2 * 256)),
        ("phi-2", RED_PLUS_SITES, 5 * 32 * 2 * 2560),
        ("opt-125m", RED_PLUS_SITES, 5 * 12 * 2 * 768),
        ("pythia-410m", ["ffn", "attention", "residual"], 3 * 24 * 2 * 1024),
        ("roberta-base", RED_PLUS_SITES, 92_160),
        ("roberta-large", RED_PLUS_SITES, 245_760),
        ("gpt2-medium", RED_PLUS_SITES, 245_760),
        ("gpt2-large", RED_PLUS_SITES, 460_800),
        ("distilbert-base", ["ffn"], 6 * 2 * 768),
        ("deberta-v3-base", ["ffn"], 12 * 2 * 768),
        ("albert-base", ["ffn"], 2 * 768),  # one block for all layers
        ("electra-base", ["ffn"], 12 * 2 * 768),
        ("xlm-roberta-base", ["ffn"], 12 * 2 * 768),
        ("modernbert-base", ["ffn"], 22 * 2 * 768),
        ("distilbert-base", RED_PLUS_SITES, 5 * 6 * 2 * 768),
        ("deberta-v3-base", RED_PLUS_SITES, 5 * 12 * 2 * 768),
        ("albert-base", RED_PLUS_SITES, 5 * 2 * 768),
        ("electra-base", RED_PLUS_SITES, 5 * 12 * 2 * 768),
        ("xlm-roberta-base", RED_PLUS_SITES, 5 * 12 * 2 * 768),
        ("modernbert-base", RED_PLUS_SITES, 5 * 22 * 2 * 768),
        ("modernbert-base", ["residual"], 22 * 2 * 768),
        ("albert-base", ["residual"], 2 * 768),
    ],
)
def test_counts_of_the_real_configurations(name: str, sites: list[str], count: int) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**REAL[name].to_dict()))
    assert sum(parameter.numel() for parameter in RED(sites).apply(model).values()) == count
