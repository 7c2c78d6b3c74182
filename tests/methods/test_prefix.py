"""Prefix tuning against peft used directly, in every family; and through generation, artefacts and refusals."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.methods import PrefixTuning
from red_lightning.tasks import Classification, InstructionTuning
from tests.backbones_zoo import FAMILIES, build, save_backbone
from tests.conversations import Conversations
from tests.sequences import (
    INPUT,
    TEXTS,
    check_batch,
    check_cache,
    check_round_trip,
    hidden,
    hooks,
    padded,
    randomise,
    two_steps,
)
from tests.training import make_data, make_task, make_trainer

WITHOUT = {"albert": "ALBERT", "deberta": "DeBERTa-v3", "distilbert": "DistilBERT", "modernbert": "ModernBERT"}
FITTING = [family for family in FAMILIES if family not in WITHOUT]


@pytest.mark.parametrize("projection", [None, 8])
@pytest.mark.parametrize("family", FITTING)
def test_trains_nothing_else_and_detaches(family: str, projection: int | None) -> None:
    model = build(family)
    keys, plain = set(model.state_dict()), hidden(model)
    method = PrefixTuning(4, projection)
    parameters = method.apply(model)
    prefixed = hidden(model)
    assert prefixed.shape == plain.shape
    assert not torch.allclose(prefixed, plain, atol=1e-4)
    assert two_steps(model, parameters) == set(parameters)
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(hidden(copied), hidden(model))
    method.detach(model)
    assert torch.equal(hidden(model), plain)
    assert set(model.state_dict()) == keys
    assert hooks(model) == 0
    assert not torch.equal(hidden(copied), plain)


@pytest.mark.parametrize("family", WITHOUT)
def test_a_family_without_a_cache_is_refused(family: str) -> None:
    model = build(family)
    assert "choose PromptTuning" in PrefixTuning.limit(record_of(model.config), has_head=True)
    with pytest.raises(UsageError, match="reads no cache of keys and values"):
        PrefixTuning().apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks(model) == 0


@pytest.mark.parametrize("family", FITTING)
def test_padding_changes_nothing(family: str) -> None:
    model = build(family)
    randomise(PrefixTuning(4).apply(model))
    batch = padded(TEXTS, left=False)
    rows = hidden(model, **{"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    for row, text in enumerate(TEXTS):
        extra = {"decoder_input_ids": INPUT[[row]]} if family == "t5" else {}
        alone = hidden(model, torch.tensor([text]), **extra)[0]
        assert torch.allclose(rows[row, : len(alone)], alone, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "task"),
    [("gpt2", "CAUSAL_LM"), ("llama", "CAUSAL_LM"), ("roberta", "FEATURE_EXTRACTION"), ("t5", "SEQ_2_SEQ_LM")],
)
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # peft 0.21 passes it
def test_same_as_peft(family: str, task: str) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    ours, config = build(family), PrefixTuningConfig(task_type=task, num_virtual_tokens=5)
    wrapped: Any = get_peft_model(build(family), config).eval()
    parameters = PrefixTuning(5).apply(ours)
    randomise(parameters)
    keys, values = parameters.values()
    numbers = torch.stack([keys, values], dim=1).detach()  # layers, 2, heads, tokens, columns
    wrapped.prompt_encoder["default"].embedding.weight.data = numbers.permute(3, 0, 1, 2, 4).reshape(5, -1)
    if family == "t5":  # peft gives layer i of an encoder-decoder the numbers of layer 2 * i, and drops the others
        layers = 2 * torch.arange(len(keys)) % len(keys)
        keys.data, values.data = keys.data[layers], values.data[layers]
    batch = padded(TEXTS, left=False)
    with torch.no_grad():
        theirs = wrapped(**batch, **({"decoder_input_ids": INPUT} if family == "t5" else {}))[0]
    rows = hidden(ours, batch["input_ids"], attention_mask=batch["attention_mask"])
    real = torch.ones_like(INPUT).bool() if family == "t5" else batch["attention_mask"].bool()
    assert torch.equal(rows[real], theirs[real])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "t5"])
def test_generates_in_a_batch_what_it_does_alone(family: str, beams: int) -> None:
    check_batch(PrefixTuning(5), family, beams)


def test_steps_with_the_cache_are_those_without() -> None:
    check_cache(PrefixTuning(5))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "t5"])
def test_generates_the_same_without_the_cache(family: str) -> None:
    model: Any = build(family)
    randomise(PrefixTuning(5).apply(model))
    batch = padded(TEXTS, left=family != "t5")

    def logits(use_cache: bool) -> torch.Tensor:
        options = {"output_logits": True, "return_dict_in_generate": True, "use_cache": use_cache}
        written = model.generate(
            **batch, **options, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0
        )
        return torch.stack(written.logits)

    assert torch.allclose(logits(False), logits(True), atol=1e-4)


def test_attention_is_the_papers_equation() -> None:
    model: Any = build("gpt2", layers=1)
    parameters = PrefixTuning(3).apply(model)
    randomise(parameters)
    keys, values = (numbers[0] for numbers in parameters.values())  # heads, tokens, columns
    block = model.transformer.h[0]
    seen: dict[str, torch.Tensor] = {}
    block.attn.c_attn.register_forward_hook(lambda module, args, output: seen.update(projected=output))
    block.attn.c_proj.register_forward_hook(lambda module, args, output: seen.update(mixed=args[0]))
    hidden(model, INPUT[:1])
    query, key, value = (part.view(5, 4, 8).transpose(0, 1) for part in seen["projected"][0].split(32, dim=1))
    scores = query @ torch.cat([keys, key], dim=1).transpose(1, 2) / 8**0.5
    hides = torch.cat([torch.zeros(5, 3), torch.ones(5, 5).triu(1)], dim=1).bool()
    weights = scores.masked_fill(hides, -torch.inf).softmax(-1)
    mixed = (weights @ torch.cat([values, value], dim=1)).transpose(0, 1).reshape(5, 32)
    assert torch.allclose(seen["mixed"][0], mixed, atol=1e-5)


def test_a_projection_is_the_papers_network() -> None:
    model: Any = build("gpt2")
    embeddings, inner, shift, outer, offset = PrefixTuning(3, 8).apply(model).values()
    keys, values = model.transformer.virtual_tokens()
    made = torch.tanh(embeddings @ inner.T + shift) @ outer.T + offset
    assert torch.allclose(torch.stack([keys, values])[:, :, 0].permute(3, 0, 1, 2, 4).reshape(3, -1), made, atol=1e-6)


@pytest.mark.parametrize("precision", ["weights", "autocast"])
def test_a_bfloat16_backbone_learns_in_float32(precision: str) -> None:
    model = build("qwen3")
    if precision == "weights":
        model = model.bfloat16()
    parameters = PrefixTuning(5).apply(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        logits = model(input_ids=INPUT, use_cache=False).logits
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in parameters.values())


@pytest.mark.parametrize(("layers", "width", "count"), [(24, 1024, 786_432), (36, 1280, 1_474_560)])
def test_count_of_the_paper(layers: int, width: int, count: int) -> None:
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64)
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in PrefixTuning(16).apply(model).values()) == count  # 0.8M and 1.5M of Table 2


def test_keys_that_queries_share_count_once() -> None:
    config: Any = AutoConfig.for_model("llama", num_attention_heads=8, num_key_value_heads=2, hidden_size=64)
    with torch.device("meta"):
        keys, _ = PrefixTuning(3).apply(AutoModelForCausalLM.from_config(config)).values()
    assert keys.shape == (32, 2, 3, 8)


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
@pytest.mark.parametrize("projection", [None, 8])
def test_edits_round_trip(family: str, projection: int | None, tmp_path: Path) -> None:
    check_round_trip(PrefixTuning(5, projection), family, tmp_path)


def test_gradient_checkpointing_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    task = make_task(gpt2_folder, method=PrefixTuning(), backbone_options=BackboneOptions(gradient_checkpointing=True))
    with pytest.raises(UsageError, match="gradient_checkpointing off"):
        make_trainer(tmp_path).fit(task, datamodule=make_data(tmp_path, max_source_length=30, max_target_length=30))


def test_packing_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    data = Conversations(packing=True)
    task = InstructionTuning(str(llama_folder), PrefixTuning())
    with pytest.raises(UsageError, match="PrefixTuning cannot tell the examples of a packed row apart"):
        make_trainer(tmp_path).fit(task, datamodule=data)


def test_a_family_is_refused_before_loading(tmp_path: Path) -> None:
    folder = save_backbone("distilbert", tmp_path / "distilbert")
    with pytest.raises(UsageError, match=r"model\.method PrefixTuning puts .* transformers' DistilBERT reads no cache"):
        Classification(str(folder), PrefixTuning())
