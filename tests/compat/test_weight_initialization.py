"""Buffers of a model that was built without memory, and which weights stay in float32."""

import pytest
import torch
import transformers
from torch import nn

from red_lightning.compat.weight_initialization import (
    FLOAT32,
    can_compute_buffers,
    compute_buffers,
    keeps_some_in_float32,
)
from tests.backbones_zoo import build

OF = f"of transformers {transformers.__version__} is gone: see compat/weight_initialization.py"


def test_t5_keeps_some_in_float32_and_gpt2_does_not() -> None:
    assert any(hasattr(transformers.PreTrainedModel, name) for name in FLOAT32), f"PreTrainedModel.{FLOAT32[0]} {OF}"
    assert keeps_some_in_float32(build("t5"))
    assert not keeps_some_in_float32(build("gpt2"))
    assert keeps_some_in_float32(nn.Linear(1, 1))  # nothing is known


@pytest.mark.parametrize("family", ["bert", "llama", "gpt_neox"])
def test_buffers_are_computed_and_parameters_stay(family: str) -> None:
    model = build(family)
    assert can_compute_buffers(model), f"PreTrainedModel._init_weights {OF}"
    expected = {name: buffer.clone() for name, buffer in model.named_buffers()}
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert expected
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.full_like(buffer, 1 if buffer.dtype == torch.bool else 77))
    compute_buffers(model)
    found = dict(model.named_buffers())
    wrong = [name for name, buffer in expected.items() if not torch.equal(found[name], buffer)]
    assert not wrong, f"_init_weights does not compute {wrong[0]} any more; it {OF}"
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, weights[name])]
    assert not changed, f"the mark _is_hf_initialized {OF}"


def test_a_model_that_does_not_tell_how() -> None:
    assert not can_compute_buffers(nn.Linear(1, 1))
