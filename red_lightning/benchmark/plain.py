"""The plain way, as the authors' published code does things: what the cases measure against.

Written anew here from what that code computes; tests hold it against its recorded outputs, so that the baseline is
what it claims to be.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PlainEdit(nn.Module):
    """A linear and the authors' edit of its output, in the place of the linear: ``linear(x) * scaling + bias``.

    The vectors have the shape (1, width) and the linear's own dtype, as theirs do (of Llama: always bfloat16).

    Args:
        linear: The linear, which stays as it is.
        width: Columns of its output.
    """

    def __init__(self, linear: nn.Module, width: int) -> None:
        super().__init__()
        like = next(linear.parameters())
        self.linear = linear
        self.scaling = nn.Parameter(torch.ones(1, width, dtype=like.dtype, device=like.device))
        self.bias = nn.Parameter(torch.zeros(1, width, dtype=like.dtype, device=like.device))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The edited output, of the linear's output's shape and dtype."""
        hidden = self.linear(*args, **kwargs) * self.scaling
        return hidden + self.bias


def apply_plain_edits(model: nn.Module, modules: Sequence[tuple[str, int]]) -> list[nn.Parameter]:
    """Freeze a model and put a :class:`PlainEdit` in the place of each of some linears.

    Args:
        model: Any model.
        modules: Name and output width of each linear.

    Returns:
        The vectors, which train: scaling and bias of each linear in turn.
    """
    model.requires_grad_(False)
    learned: list[nn.Parameter] = []
    for name, width in modules:
        parent, _, child = name.rpartition(".")
        edit = PlainEdit(model.get_submodule(name), width)
        setattr(model.get_submodule(parent), child, edit)
        learned += [edit.scaling, edit.bias]
    return learned
