"""Activations that store only their input for the backward pass.

Some models spell the tanh approximation of GELU out (GPT-2's ``gelu_new``): eight operations, of which autograd keeps
four tensors of the FFN's inner width, the largest thing that such a model keeps. Here the model's own code runs as it
is, so that outputs are bit for bit the same, and the gradient is the closed form, computed by torch's own kernel.
"""

import warnings
from functools import lru_cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from red_lightning.efficiency.verification import TOLERANCES, FastPathWarning, difference


class TanhGELU(nn.Module):
    """The tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415, section 2).

    Args:
        activation: Computes it, in whatever number of operations.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """What the activation gives: shape and dtype of ``hidden``."""
        if torch.is_grad_enabled() and hidden.requires_grad:
            return _TanhGELU.apply(hidden, self.activation)
        return self.activation(hidden)


class _TanhGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, activation: nn.Module) -> Tensor:
        ctx.save_for_backward(hidden)
        return activation(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (hidden,), (gradient,) = ctx.saved_tensors, gradients
        widened = hidden.to(gradient.dtype)  # CUDA's autocast computes powers in float32
        return torch.ops.aten.gelu_backward(gradient, widened, approximate="tanh").to(hidden.dtype), None


def replace_activations(backbone: nn.Module) -> None:
    """Put a :class:`TanhGELU` around each activation of a model that spells one out; they have no parameters."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            kind: Any = type(child)
            spelled_out = kind in (NewGELUActivation, FastGELUActivation) and not isinstance(module, TanhGELU)
            if spelled_out and _has_closed_form(kind):
                setattr(module, name, TanhGELU(child))


@lru_cache
def _has_closed_form(kind: Any) -> bool:
    """Whether autograd's gradient of an activation is the closed form's, to rounding; warns if not."""
    hidden = torch.linspace(-6, 6, 97, dtype=torch.float64, device="cpu", requires_grad=True)
    with torch.enable_grad():
        own, closed = (
            torch.autograd.grad(activation(hidden).sum(), hidden)[0] for activation in (kind(), TanhGELU(kind()))
        )
    if difference(closed, own) <= TOLERANCES[torch.float64]:
        return True
    warnings.warn(
        f"the gradient of {kind.__name__} is not that of the tanh approximation of GELU with transformers "
        f"{transformers.__version__}: please report this line; the plain path is used instead",
        FastPathWarning,
        stacklevel=3,
    )
    return False
