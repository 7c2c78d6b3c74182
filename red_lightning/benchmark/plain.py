"""The baseline of the benchmarks: edits as the authors' published code applies them.

It is a rewrite of what that code computes. Tests compare it with recorded outputs of the original.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.editing.sites import find_sites


class PlainEdit(nn.Module):
    """A linear layer with the authors' edit of its output: ``linear(x) * scaling + bias``.

    The vectors have shape (1, width) and the dtype of the layer, as in their code.

    Args:
        linear: The layer.
        width: Size of its output.
        dtype: dtype of the vectors.
    """

    def __init__(self, linear: nn.Module, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        device = next(linear.parameters()).device
        self.linear = linear
        self.scaling = nn.Parameter(torch.ones(1, width, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.zeros(1, width, dtype=dtype, device=device))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the edited output, with the shape and dtype of the layer's output."""
        return self.linear(*args, **kwargs) * self.scaling + self.bias


def apply_plain_edits(model: nn.Module, modules: Sequence[tuple[str, int]] | None = None) -> list[nn.Parameter]:
    """Freeze a model and replace linear layers by :class:`PlainEdit`.

    Args:
        model: Any model.
        modules: Name and output size of each layer. None takes the output of every FFN.

    Returns:
        The trainable vectors: scaling and bias of each layer in turn.
    """
    model.requires_grad_(False)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    learned: list[nn.Parameter] = []
    for name, width in modules or [(site.module, site.width) for site in find_sites(model, ["ffn"])]:
        parent, _, child = name.rpartition(".")
        edit = PlainEdit(model.get_submodule(name), width, dtype)
        setattr(model.get_submodule(parent), child, edit)
        learned += [edit.scaling, edit.bias]
    return learned
