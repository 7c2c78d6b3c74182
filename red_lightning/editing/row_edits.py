"""Edit each row of a batch with its own adapter, at one site."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

import torch
from torch import Tensor, nn

from red_lightning.editing.learned import Learned
from red_lightning.errors import UsageError


class StackedEditor(Learned):
    """Holds one site's vectors of every edit, and edits each row of a batch with those of the row's own.

    Args:
        width: Columns of the site's output.
        places: Number of edits that there is room for. A place without an edit holds the identity.

    Attributes:
        scaling: float32, shape (places, width).
        bias: float32, shape (places, width).
    """

    scaling: Tensor
    bias: Tensor

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.register_buffer("scaling", torch.ones(places, width, dtype=torch.float32), persistent=False)
        self.register_buffer("bias", torch.zeros(places, width, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def put(self, place: int, scaling: Tensor | None, bias: Tensor | None) -> None:
        """Write one edit's vectors of the site."""
        self.scaling[place] = 1 if scaling is None else scaling
        self.bias[place] = 0 if bias is None else bias

    def grow(self) -> None:
        """Make room for twice as many edits."""
        self.scaling = torch.cat([self.scaling, torch.ones_like(self.scaling)])
        self.bias = torch.cat([self.bias, torch.zeros_like(self.bias)])

    def gather(self, places: Tensor) -> "Rows":
        """The vectors of a batch: a copy, which later changes do not touch."""
        return Rows(self.scaling.index_select(0, places), self.bias.index_select(0, places))

    def forward(self, hidden: Tensor) -> Tensor:
        """Edit a representation, in float32 and rounded once; outside :meth:`EditBank.use` nothing is edited.

        Args:
            hidden: Floating point, shape (rows x n, ..., width): n beams or samples of each row lie side by side.

        Returns:
            The edited representation; shape and dtype of ``hidden``.
        """
        rows = BATCH.get().get(self)
        return hidden if rows is None else rows.edit(hidden)


class Rows:
    """One site's vectors of each row of a batch.

    Args:
        scaling: float32, shape (rows, width).
        bias: float32, shape (rows, width).
    """

    def __init__(self, scaling: Tensor, bias: Tensor) -> None:
        self.scaling, self.bias = scaling, bias
        self.views: dict[int, tuple[Tensor, Tensor]] = {}

    def spread(self, rows: int) -> "Rows":
        """Those of as many rows as a batch has, where several that lie side by side share an edit."""
        return self.of(torch.arange(rows, device=self.scaling.device) * len(self.scaling) // rows)

    def of(self, rows: Tensor) -> "Rows":
        """Those of the rows of these indices."""
        return Rows(self.scaling.index_select(0, rows), self.bias.index_select(0, rows))

    def edit(self, hidden: Tensor) -> Tensor:
        """Edit a representation of shape (rows x n, ..., width).

        Raises:
            UsageError: Its first dimension is no multiple of the rows.
        """
        rows = self.scaling.shape[0]
        times, rest = divmod(hidden.shape[0], rows)
        if rest:
            raise UsageError(
                f"the batch has {hidden.shape[0]} rows, which {rows} edits do not divide: name one edit, or None, for "
                "each row of what the backbone is given"
            )
        apart = hidden if times == 1 else hidden.unflatten(0, (rows, times))
        scaling, bias = self._broadcast(apart.dim())
        edited = torch.addcmul(bias, apart, scaling).to(hidden.dtype)
        return edited if times == 1 else edited.flatten(0, 1)

    def _broadcast(self, dimensions: int) -> tuple[Tensor, Tensor]:
        if dimensions not in self.views:
            shape = (self.scaling.shape[0], *[1] * (dimensions - 2), -1)
            self.views[dimensions] = self.scaling.view(shape), self.bias.view(shape)
        return self.views[dimensions]


BATCH: ContextVar[Mapping[nn.Module, Rows]] = ContextVar("BATCH", default=MappingProxyType({}))
"""The vectors of the batch that this thread or task computes, by the site's editor."""
