"""Cheap operations: how the output of each is computed again, given what the autograd graph knows about it."""

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu

_EPSILON = "epsilon"
"""Where a LayerNorm's node notes it."""


class Rule(NamedTuple):
    """How the output of an operation is computed again.

    Attributes:
        function: What computes it from the operands, given the operation's node; None if that is not known.
        saved: For each operand, where the node has it if it needs no gradient; None where it has not.
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


def convert(node: Any) -> Callable[..., Tensor]:
    """Converts a tensor as a ``ToCopyBackward0`` did."""
    made = node._input_metadata[0]
    return methodcaller("to", made.device, made.dtype)


def _layer_norm(node: Any) -> Callable[..., Tensor] | None:
    if (epsilon := node.metadata.get(_EPSILON)) is None:
        return None
    shape = node._saved_normalized_shape
    return lambda hidden, weight, bias: layer_norm(hidden, shape, weight, bias, epsilon)


def _dropout(node: Any) -> Callable[..., Tensor]:
    mask = node._saved_result1
    keep = torch.tensor(1 - node._saved_p, dtype=torch.float32).item()
    scale = torch.tensor(1 / keep, dtype=torch.float32).item()  # the CUDA kernel's, to the last bit
    return lambda hidden: hidden * mask * scale


def _view(node: Any) -> Callable[..., Tensor]:
    return methodcaller("reshape", node._input_metadata[0].shape)


RULES = {
    "AddBackward0": Rule(lambda node: partial(torch.add, alpha=node._saved_alpha), (None, None)),
    "MulBackward0": Rule(lambda _: torch.mul, ("_saved_self", "_saved_other")),
    "AddcmulBackward0": Rule(
        lambda node: partial(torch.addcmul, value=node._saved_value), (None, "_saved_tensor1", "_saved_tensor2")
    ),
    "SiluBackward0": Rule(lambda _: silu),
    "GeluBackward0": Rule(lambda node: partial(gelu, approximate=node._saved_approximate)),
    "NativeLayerNormBackward0": Rule(_layer_norm, (None, "_saved_weight", "_saved_bias")),
    "NativeDropoutBackward0": Rule(_dropout),
    "ToCopyBackward0": Rule(convert),
    "ViewBackward0": Rule(_view),
    "UnsafeViewBackward0": Rule(_view),
}
"""The operations, by the names of their nodes."""
