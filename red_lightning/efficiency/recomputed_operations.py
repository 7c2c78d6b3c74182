"""Cheap operations, and how to recompute their outputs from the autograd graph."""

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu

from red_lightning.compat.autograd_graph import output_of, saved

_EPSILON = "epsilon"
"""Where a LayerNorm's node notes it."""


class Rule(NamedTuple):
    """How the output of an operation is computed again.

    Attributes:
        function: What computes it from the operands, given the operation's node; None if that is not known.
        saved: For each operand, the name under which the node has it if it needs no gradient; None where it has not.
    """

    function: Callable[[Any], Callable[..., Tensor] | None]
    saved: tuple[str | None, ...] = (None,)


def note_epsilon(norm: Any, args: Any, output: Tensor) -> None:
    """Forward hook of a LayerNorm, whose node does not know its epsilon."""
    if torch.compiler.is_compiling():
        return
    node: Any = output.grad_fn
    if node is not None:
        node.metadata[_EPSILON] = norm.eps


def convert(node: Any) -> Callable[..., Tensor] | None:
    """Converts a tensor as a ``ToCopyBackward0`` did."""
    made = output_of(node)
    return made and methodcaller("to", made.device, made.dtype)


def _layer_norm(node: Any) -> Callable[..., Tensor] | None:
    epsilon, shape = node.metadata.get(_EPSILON), saved(node, "normalized_shape")
    if epsilon is None or shape is None:
        return None
    return lambda hidden, weight, bias: layer_norm(hidden, shape, weight, bias, epsilon)


def _dropout(node: Any) -> Callable[..., Tensor] | None:
    mask, dropped = saved(node, "result1"), saved(node, "p")
    if mask is None or dropped is None:
        return None
    keep = torch.tensor(1 - dropped, dtype=torch.float32).item()
    scale = torch.tensor(1 / keep, dtype=torch.float32).item()  # the CUDA kernel's, to the last bit
    return lambda hidden: hidden * mask * scale


def _view(node: Any) -> Callable[..., Tensor] | None:
    made = output_of(node)
    return made and methodcaller("reshape", made.shape)


def _with(function: Callable[..., Tensor], option: str) -> Callable[[Any], Callable[..., Tensor] | None]:
    """A rule's function: one that is called with an option, which the node has saved under its name."""

    def fill(node: Any) -> Callable[..., Tensor] | None:
        value = saved(node, option)
        return None if value is None else partial(function, **{option: value})

    return fill


RULES = {
    "AddBackward0": Rule(_with(torch.add, "alpha"), (None, None)),
    "MulBackward0": Rule(lambda _: torch.mul, ("self", "other")),
    "AddcmulBackward0": Rule(_with(torch.addcmul, "value"), (None, "tensor1", "tensor2")),
    "SiluBackward0": Rule(lambda _: silu),
    "GeluBackward0": Rule(_with(gelu, "approximate")),
    "NativeLayerNormBackward0": Rule(_layer_norm, (None, "weight", "bias")),
    "NativeDropoutBackward0": Rule(_dropout),
    "ToCopyBackward0": Rule(convert),
    "ViewBackward0": Rule(_view),
    "UnsafeViewBackward0": Rule(_view),
}
"""The operations, by the names of their nodes."""
