"""The spelled-out GELU that keeps only its input."""

import copy

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from red_lightning.benchmark.memory import saved_bytes
from red_lightning.efficiency.input_only_activations import TanhGELU, replace_activations
from tests.backbones_zoo import build


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_outputs_and_the_gradient_of_one_input(name: str, dtype: torch.dtype) -> None:
    hidden = torch.linspace(-6, 6, 4096, dtype=dtype)
    weights = torch.randn(4096, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = hidden.double().requires_grad_()
    nn.functional.gelu(exact, approximate="tanh").backward(weights.double())
    errors = []
    for activation in (TanhGELU(ACT2FN[name]), ACT2FN[name]):
        leaf = hidden.clone().requires_grad_()
        output = activation(leaf)
        assert torch.equal(output, ACT2FN[name](hidden)) and output.dtype == dtype
        output.backward(weights)
        assert leaf.grad is not None and leaf.grad.dtype == dtype and exact.grad is not None
        errors.append(float((leaf.grad.double() - exact.grad).norm() / exact.grad.norm()))
    ours, plain = errors
    assert ours <= {torch.float32: 5e-7, torch.bfloat16: 2e-3, torch.float16: 3e-4}[dtype]
    assert ours <= plain or dtype == torch.float32  # the model's own code rounds after each step


def test_only_the_input_is_kept() -> None:
    activation = TanhGELU(ACT2FN["gelu_new"])
    leaf = torch.randn(64, 64, requires_grad=True)
    assert saved_bytes(lambda: activation(leaf * 2), activation) == leaf.nbytes
    assert activation(leaf.detach()).grad_fn is None
    with torch.no_grad():
        assert activation(leaf).grad_fn is None


def test_second_derivatives() -> None:
    hidden = torch.randn(8, dtype=torch.float64, requires_grad=True)
    activation = TanhGELU(ACT2FN["gelu_new"])
    assert torch.autograd.gradcheck(activation, hidden) and torch.autograd.gradgradcheck(activation, hidden)


def test_a_model_keeps_its_names_and_outputs() -> None:
    model = build("gpt2")
    plain = copy.deepcopy(model)
    replace_activations(model)
    assert sum(isinstance(module, TanhGELU) for module in model.modules()) == 2
    assert list(model.state_dict()) == list(plain.state_dict())
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids).logits, plain(ids).logits)
    replace_activations(model)  # a second time changes nothing
    assert sum(isinstance(module, TanhGELU) for module in model.modules()) == 2
