"""SSF: every linear of the blocks and every norm, folded exactly."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning.errors import UsageError
from red_lightning.methods import SSF
from tests.backbones_zoo import FAMILIES, MASKED, build
from tests.methods.guarantees import check, output, size, train
from tests.methods.real_sizes import on_meta

GPT2_SITES = {
    f"transformer.h.{layer}.{name}"
    for layer in (0, 1)
    for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
} | {"transformer.ln_f"}


def test_sites() -> None:
    learned = SSF().apply(build("gpt2"))
    assert set(learned) == {f"{site}.editor.{vector}" for site in GPT2_SITES for vector in ("scaling", "bias")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "llama"])
def test_guarantees(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    check(SSF(), family, tmp_path / "random", dtype)
    check(SSF(init_std=0), family, tmp_path / "identity", dtype)


CENTRED = ("gpt2", "gpt_neox", "opt", "phi", *MASKED)
"""The families whose norms are LayerNorms."""


@pytest.mark.parametrize("family", CENTRED)
def test_fold_gives_the_edited_outputs(family: str) -> None:
    model = build(family)
    ssf = SSF(init_std=0.1)
    ssf.apply(model)
    edited = output(model)
    ssf.fold(model)
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(output(model), edited, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*CENTRED}))
def test_fold_into_rms_norms_is_refused_and_nothing_changes(family: str) -> None:
    model = build(family)
    ssf = SSF()
    train(model, ssf.apply(model))
    edited = output(model)
    with pytest.raises(UsageError, match=r"an edit on a \w+Norm cannot be merged: .*; keep the edits"):
        ssf.fold(model)
    assert torch.equal(output(model), edited)


def test_first_values_follow_the_seed_and_the_paper() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(SSF().apply(build("gpt2", layers=4)))  # build draws from a seed of its own
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    for kind, mean in (("scaling", 1), ("bias", 0)):
        values = torch.cat([p.detach() for name, p in drawn[0].items() if name.endswith(kind)])
        assert values.mean().item() == pytest.approx(mean, abs=0.003)
        assert values.std().item() == pytest.approx(0.02, rel=0.1)


def test_negative_deviation_is_refused() -> None:
    with pytest.raises(UsageError, match="init_std is -1, but must be at least 0"):
        SSF(-1)


def test_counts() -> None:
    width, inner = 768, 3072
    block = 4 * width + inner + width + 2 * width
    assert size(SSF().apply(on_meta("roberta-base"))) == 2 * (12 * block + width) == 204_288
    width = 1024
    block = 2 * width + 3 * width + width + 4 * width + width
    assert size(SSF().apply(on_meta("gpt2-medium", AutoModelForCausalLM))) == 2 * (24 * block + width)
