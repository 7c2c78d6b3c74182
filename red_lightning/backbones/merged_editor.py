"""The edit of a batch in which several trainings have rows: each row's by the vectors of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.surgery import edited
from red_lightning.errors import UsageError


@dataclass
class Batch:
    """The rows that are computed together: it changes with the pass, and each editor knows it.

    Attributes:
        rows: How many each training has, in their order.
    """

    rows: dict[int, int] = field(default_factory=dict)

    def spread(self, vectors: Sequence[Tensor], hidden: Tensor) -> Tensor:
        """Each training's vector at each of its rows: float32, shape (rows, 1, ..., width).

        Args:
            vectors: Those of one site, in the order of the trainings: float32, shape (width,).
            hidden: What they edit: shape (rows, ..., width), or (rows x tokens, width).

        Raises:
            ValueError: Its first dimension does not know the rows.
        """
        each, rest = divmod(len(hidden), sum(self.rows.values()))
        if rest:
            raise ValueError("the rows cannot be told apart")
        counts, known = tuple(count * each for count in self.rows.values()), torch.stack(tuple(vectors))
        if len(set(counts)) == 1:  # as most often: no index goes to the device, and sums are in one order there
            of_rows = known.repeat_interleave(counts[0], 0)
        else:
            of_rows = known.index_select(0, _places(counts, hidden.device))
        return of_rows.view(-1, *[1] * (hidden.dim() - 2), hidden.shape[-1])


@lru_cache(maxsize=8)  # one for all sites of a pass, and for the passes after it
def _places(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Each row's place among several things, of which each is for so many rows: int64, shape (rows,)."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)


class MergedEditor(nn.Module):
    """Edits the rows of each training with its own editor's vectors: in float32, and rounded once, as that does.

    Args:
        site: The module whose output is edited.
        editors: The editors there, by the training's number; each has ``vectors()``.
        batch: What is computed.
    """

    def __init__(self, site: str, editors: Mapping[int, Any], batch: Batch) -> None:
        super().__init__()
        self.site, self.batch = site, batch
        self.editors = dict(editors)  # no child modules: they are their own backbones'

    def forward(self, hidden: Tensor) -> Tensor:
        """Edit a representation of shape (rows of all trainings, ..., width)."""
        pairs = [self.editors[member].vectors() for member in self.batch.rows]
        try:
            scaling, bias = (self._spread(vectors, hidden) for vectors in zip(*pairs, strict=True))
        except ValueError:
            raise UsageError(
                f"the output of '{self.site}' is computed for the whole batch at once, not for each row, so replicas "
                "cannot share a pass; train them one after another, or edit other sites"
            ) from None
        return edited(hidden, scaling, bias)

    def _spread(self, vectors: Sequence[Tensor | None], hidden: Tensor) -> Tensor | None:
        known = [vector for vector in vectors if vector is not None]
        return self.batch.spread(known, hidden) if known else None
