"""The families of encoders, each against transformers' own model: what is edited, merged, pooled and refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from red_lightning import RED
from red_lightning.backbones.classification_head import HeadOptions, pool, pooling_of
from red_lightning.backbones.loading import BackboneOptions, find, load_encoder
from red_lightning.export import export_merged
from red_lightning.families import record_of
from red_lightning.families.positions import position_limit
from red_lightning.families.unsupported import UNSUPPORTED
from tests.backbones_zoo import build, save_backbone
from tests.export.exports import trained
from tests.families.readers_zoo import ENCODERS

BERT = {
    "ffn": "encoder.layer.{}.output.dense",
    "attention": "encoder.layer.{}.attention.output.dense",
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "residual": "encoder.layer.{}.output",
}
PRENORM = {**BERT, "residual": "encoder.layer.{}"}
GATED = {
    "ffn": "layers.{}.mlp.down_proj",
    "attention": "layers.{}.self_attn.o_proj",
    "query": "layers.{}.self_attn.q_proj",
    "key": "layers.{}.self_attn.k_proj",
    "value": "layers.{}.self_attn.v_proj",
    "residual": "layers.{}",
}
POSTNORM = {**GATED, "residual": "layers.{}.post_mlp_layernorm"}
XLM = {
    "ffn": "ffns.{}.lin2",
    "attention": "attentions.{}.out_lin",
    "query": "attentions.{}.q_lin",
    "key": "attentions.{}.k_lin",
    "value": "attentions.{}.v_lin",
    "residual": "layer_norm2.{}",
}
MODULES: dict[str, dict[str, str]] = {
    "big_bird": BERT,
    "camembert": BERT,
    "data2vec_text": BERT,
    "deberta_v1": {site: BERT[site] for site in ("ffn", "attention", "residual")},
    "deberta_v2": {
        **BERT,
        **{site: BERT[site] + "_proj" for site in ("query", "key", "value")},
    },
    "ernie": BERT,
    "eurobert": GATED,
    "flaubert": {site: name for site, name in XLM.items() if site != "residual"},
    "gte": POSTNORM,
    "jina_embeddings_v3": {**POSTNORM, "ffn": "layers.{}.mlp.fc2"},
    "megatron_bert": PRENORM,
    "mpnet": {
        **BERT,
        **{site: "encoder.layer.{}.attention.attn." + site[0] for site in ("query", "key", "value")},
        "attention": "encoder.layer.{}.attention.attn.o",
    },
    "nomic_bert": POSTNORM,
    "rembert": BERT,
    "roberta_prelayernorm": PRENORM,
    "roformer": BERT,
    "ultrabert": GATED,
    "xlm": XLM,
    "xlm_roberta_xl": PRENORM,
}
FAMILIES = sorted(ENCODERS)
QUICK = ("camembert", "deberta_v1", "gte", "mpnet", "xlm")
EVERY = [pytest.param(family, marks=[] if family in QUICK else pytest.mark.slow) for family in FAMILIES]
"""With one family of each kind of code in the fast tier."""
POOLERS = ("ernie", "megatron_bert", "rembert")
MEANS = ("jina_embeddings_v3", "nomic_bert")
UNLIMITED = ("deberta_v1",)
ROTARY = ("eurobert", "gte", "jina_embeddings_v3", "nomic_bert", "ultrabert")
"""Families whose positions are computed: the limit is that of the training, and the code runs beyond it."""
OWN = {
    **dict.fromkeys(
        (
            *("camembert", "data2vec_text", "deberta_v1", "deberta_v2", "gte", "jina_embeddings_v3"),
            *("mpnet", "nomic_bert", "roberta_prelayernorm", "xlm_roberta_xl"),
        ),
        HeadOptions("first", True),
    ),
    **dict.fromkeys(POOLERS, HeadOptions("pooler", False)),
    **dict.fromkeys(("xlm", "flaubert"), HeadOptions("first", False)),
}
"""What transformers has a classifier of its own for."""
OTHERS = ("big_bird", "eurobert", "roformer", "ultrabert")
BARE_BIASES = ("eurobert", "gte", "nomic_bert", "ultrabert")
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 1, 1]])
MASK = (TOKENS != 1).long()


@torch.no_grad()
def states(model: Any, tokens: Tensor = TOKENS, mask: Tensor = MASK) -> Tensor:
    """Hidden states of the tokens that are no padding, row after row: shape (tokens, width)."""
    hidden: Tensor = model(input_ids=tokens, attention_mask=mask).last_hidden_state
    return hidden[mask.bool()]


def edits(width: int, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return 1 + 0.3 * torch.randn(width, generator=generator), 0.3 * torch.randn(width, generator=generator)


def edit_by_hand(model: nn.Module, names: list[str]) -> None:
    """Hooks that share nothing with the package's editors."""

    def hook(number: int) -> Any:
        def edit(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            scaling, bias = edits(hidden.shape[-1], number)
            changed = scaling * hidden + bias
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return edit

    for number, name in enumerate(names):
        model.get_submodule(name).register_forward_hook(hook(number))


def edit(model: nn.Module, sites: list[str], names: list[str]) -> RED:
    """The same edits by the package, which finds the modules itself."""
    method = RED(sites)
    learned = method.apply(model)
    assert {name.rpartition(".editor.")[0] for name in learned} == set(names)
    for number, name in enumerate(names):
        scaling, bias = learned[f"{name}.editor.scaling"], learned[f"{name}.editor.bias"]
        scaling.data, bias.data = edits(len(scaling), number)
    return method


def modules_of(family: str, sites: list[str]) -> list[str]:
    return [MODULES[family][site].format(layer) for site in sites for layer in range(2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_act_where_a_hook_placed_by_hand_does(family: str) -> None:
    record = record_of(build(family).config)
    assert record is not None and set(record.sites) == set(MODULES[family])
    plain = states(build(family))
    for sites in ([site] for site in MODULES[family]):
        own, other = build(family), build(family)
        names = modules_of(family, sites)
        method = edit(own, sites, names)
        edit_by_hand(other, names)
        torch.testing.assert_close(states(own), states(other), rtol=1e-5, atol=3e-6)
        assert (states(own) - plain).abs().max() > 1e-3, sites
        method.detach(own)
        assert torch.equal(states(own), plain)


@pytest.mark.parametrize("family", EVERY)
def test_sites_are_what_they_are_called(family: str) -> None:
    """Without attention a token sees itself alone; without the residual of the last layer nothing is left of a text."""

    def erased(sites: list[str]) -> nn.Module:
        model = build(family)
        for name, vector in RED(sites).apply(model).items():
            if name.endswith("scaling"):
                vector.data.zero_()
        return model

    changed = TOKENS.clone()
    changed[:, 3] += 100
    first = [0, 8]  # the first token of each row, and of the second row, too
    for sites in (["attention"], ["value"]) if "value" in MODULES[family] else (["attention"],):
        model = erased(sites)
        torch.testing.assert_close(states(model, changed)[first], states(model)[first])
        assert (states(model, changed)[3] - states(model)[3]).abs().max() > 1e-3
    model = build(family)
    assert (states(model, changed)[first] - states(model)[first]).abs().max() > 1e-4
    if "residual" in MODULES[family]:
        left = states(erased(["residual"]))
        torch.testing.assert_close(left, left[:1].expand_as(left))
    model = erased(["ffn"])
    ffn = model.get_submodule(modules_of(family, ["ffn"])[0])
    ffn.weight.requires_grad_(True)  # type: ignore[union-attr, operator]
    model(input_ids=TOKENS, attention_mask=MASK).last_hidden_state.square().sum().backward()
    assert not ffn.weight.grad.any()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family: str) -> None:
    model = build(family)
    alone = torch.cat(
        [
            states(model, row[mask.bool()][None], torch.ones(1, int(mask.sum()), dtype=torch.long))
            for row, mask in zip(TOKENS, MASK, strict=True)
        ]
    )
    torch.testing.assert_close(states(model), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["fnet", "convbert", "nystromformer"])
def test_families_that_read_padding_have_no_record(model_type: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(model_type, vocab_size=300, **sizes)
    assert record_of(config) is None and "padding" in UNSUPPORTED[model_type]
    model: Any = AutoModel.from_config(config).eval()
    tokens = torch.arange(5, 11)[None]
    padded = torch.cat([tokens, torch.full((1, 6), config.pad_token_id)], 1)
    inputs = {"input_ids": padded}
    if model_type != "fnet":
        inputs["attention_mask"] = (torch.arange(12) < 6).long()[None]
    with torch.no_grad():
        alone, beside = model(input_ids=tokens)[0], model(**inputs)[0][:, :6]
    assert (alone - beside).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_tokens_are_read_as_there_are_positions(family: str) -> None:
    model: Any = build(family)
    limit = position_limit(model.config)
    assert limit == (None if family in UNLIMITED else 64)
    most = torch.full((1, limit or 64), 7)
    assert model(input_ids=most).last_hidden_state.isfinite().all()
    longer = torch.full((1, 65), 7)
    if family in (*UNLIMITED, *ROTARY):
        assert model(input_ids=longer).last_hidden_state.isfinite().all()
    else:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=longer)


@pytest.mark.parametrize("family", FAMILIES)
def test_pooling(family: str) -> None:
    expected = "pooler" if family in POOLERS else "mean" if family in MEANS else "first"
    assert pooling_of(build(family).config) == expected


def foldable(family: str) -> list[str]:
    return [site for site in MODULES[family] if site != "residual"]


@pytest.mark.parametrize("family", EVERY)
def test_edits_fold(family: str) -> None:
    model = build(family)
    method = edit(model, foldable(family), modules_of(family, foldable(family)))
    expected = states(model)
    method.fold(model)
    torch.testing.assert_close(states(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", EVERY)
def test_an_export_loads_as_it_is(family: str, tmp_path: Path) -> None:
    """As transformers' own classifier where it computes the same, else as a backbone with the head beside it."""
    assert (family in OWN) != (family in OTHERS)
    options = OWN.get(family, HeadOptions("first", True))
    backbone = save_backbone(family, tmp_path / family)
    vectors = "scaling" if family in BARE_BIASES else "both"
    model, head = trained(tmp_path / "run", backbone, RED(foldable(family), vectors), options, ["no", "yes", "maybe"])
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    assert head is not None
    with torch.no_grad():
        output = model(input_ids=TOKENS, attention_mask=MASK)
        expected = head(pool(output, MASK, options.pooling))  # type: ignore[arg-type]
        auto = AutoModelForSequenceClassification if family in OWN else AutoModel
        plain: Any = auto.from_pretrained(exported.folder).eval()
        got = plain(input_ids=TOKENS, attention_mask=MASK)[0]
    assert exported.auto == auto.__name__
    if family in OWN:
        assert plain.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(got[MASK.bool()], output[0][MASK.bool()], rtol=1e-4, atol=1e-5)
        assert (exported.folder / "head.safetensors").is_file()


def test_bigbird_reads_with_full_attention_from_the_start(tmp_path: Path) -> None:
    """transformers' block-sparse attention falls back to it at the first short text, and stays there."""
    plain: Any = build("big_bird")
    assert plain.attention_type == "block_sparse"
    source = find(str(save_backbone("big_bird", tmp_path / "big_bird")), BackboneOptions())
    model: Any = load_encoder(source, BackboneOptions(), keep_pooler=False).eval()
    longer = torch.randint(2, 300, (1, 64), generator=torch.Generator().manual_seed(0))
    ones = torch.ones_like(longer)
    before = states(model, longer, ones)
    sparse = states(plain, longer, ones)
    states(model)
    states(plain)  # short texts
    assert torch.equal(states(model, longer, ones), before)
    torch.testing.assert_close(states(plain, longer, ones), before)
    assert (sparse - before).abs().max() > 1e-3
