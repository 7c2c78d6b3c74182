"""BitFit against training the biases themselves in plain torch, and against the paper's counts."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from red_lightning.errors import UsageError
from red_lightning.methods import BitFit
from tests.backbones_zoo import FAMILIES, build
from tests.methods.guarantees import check, output, size, snapshot, train
from tests.methods.real_sizes import on_meta

BARE = ("gemma", "gemma2", "gemma3", "llama", "mistral", "modernbert", "phi3", "qwen3", "t5")
"""The families that have no biases (ModernBERT's published models neither)."""
BIASED = [family for family in FAMILIES if family not in BARE]


@pytest.mark.parametrize("family", BIASED)
def test_is_training_the_biases_in_place(family: str) -> None:
    ours, theirs = build(family), build(family)
    learned = BitFit().apply(ours)
    theirs.requires_grad_(False)
    biases = {name: p.requires_grad_() for name, p in theirs.named_parameters() if name.split(".")[-1] == "bias"}
    assert {name.replace(".editor.", ".") for name in learned} == set(biases)
    train(ours, learned)
    train(theirs, biases)
    torch.testing.assert_close(output(ours), output(theirs), atol=1e-5, rtol=1e-4)
    start = dict(build(family).named_parameters())
    for name, parameter in learned.items():
        stored = name.replace(".editor.", ".")
        torch.testing.assert_close(start[stored] + parameter, biases[stored], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", BARE)
def test_a_family_without_biases_gets_one_sentence(family: str) -> None:
    model = build(family)
    with pytest.raises(UsageError, match=r"^this backbone has no biases .*\.add_biases: true gives each") as raised:
        BitFit().apply(model)
    assert "\n" not in str(raised.value)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "add"), [("roberta", False), ("gpt2", False), ("t5", True), ("llama", True)])
def test_guarantees(family: str, add: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    check(BitFit(add), family, tmp_path, dtype)


def test_a_small_step_counts_beside_a_bfloat16_bias() -> None:
    model = build("roberta").bfloat16()
    learned = BitFit().apply(model)
    train(model, learned, rate=1e-5)
    name = "encoder.layer.0.output.dense"
    step = learned[f"{name}.editor.bias"].detach()
    bias = model.get_submodule(name).bias
    assert step.abs().max() > 0
    assert torch.equal((bias.float() + step).bfloat16(), bias)  # in bfloat16 it would be lost


@pytest.mark.parametrize(("family", "add"), [("roberta", False), ("gpt2", False), ("gpt2", True), ("opt", False)])
def test_fold_gives_the_edited_outputs(family: str, add: bool) -> None:
    model = build(family)
    weights = {name: value for name, value in snapshot(model).items() if not name.endswith("bias")}
    bitfit = BitFit(add)
    train(model, bitfit.apply(model), rate=0.5)
    edited = output(model)
    bitfit.fold(model)
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(output(model), edited, atol=2e-4, rtol=1e-4)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize(("family", "norm"), [("t5", "T5LayerNorm"), ("llama", "LlamaRMSNorm")])
def test_a_bias_added_to_an_rms_norm_is_not_folded(family: str, norm: str) -> None:
    model = build(family)
    bitfit = BitFit(add_biases=True)
    train(model, bitfit.apply(model))
    edited = output(model)
    with pytest.raises(UsageError, match=f"an edit on a {norm} cannot be merged"):
        bitfit.fold(model)
    assert torch.equal(output(model), edited)


def test_editing_twice_is_refused() -> None:
    model = build("roberta")
    BitFit().apply(model)
    with pytest.raises(UsageError, match="edited already"):
        BitFit().apply(model)


def test_counts_of_the_paper() -> None:
    width, inner = 768, 3072
    block = 4 * width + inner + width + 2 * width  # q, k, v, o, the FFN's two, the norms'
    assert size(BitFit().apply(on_meta("roberta-base"))) == 12 * block + width == 102_144  # Table 1: 0.1M
    linears = 12 * (4 * width + inner + width) + 12 * (8 * width + inner + width)
    learned = BitFit(add_biases=True).apply(on_meta("t5-base", AutoModelForSeq2SeqLM))
    assert size(learned) == linears + 62 * width + 32_128 == 282_496  # Table 3: 0.3M
    assert learned["lm_head.editor.bias"].shape == (32_128,)


def test_of_any_model() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5, bias=False), nn.LayerNorm(5))
    assert {name: len(p) for name, p in BitFit().apply(model).items()} == {"0.editor.bias": 6, "2.editor.bias": 5}
