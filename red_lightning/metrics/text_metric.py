"""Base of the text metrics: gathers rows, and scores them with a pure function."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from red_lightning.errors import UsageError
from red_lightning.metrics.predictions import Row, pack, to_rows, unpack


class TextMetric(Metric, ABC):
    """A score of a whole corpus of predictions against groups of references.

    None of the five scores is a mean over batches, so the state is the text itself. After a sync all
    processes hold all rows in the same order, and the score is bit for bit that of one process.

    Args:
        kwargs: Options of `torchmetrics.Metric`, such as ``sync_on_compute``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    packed: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("packed", default=[], dist_reduce_fx="cat")
        self._hold_nothing()

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        # An empty list is not gathered, which leaves the other processes waiting; an empty tensor is.
        self.packed.append(torch.empty(0, dtype=torch.uint8, device=self.device))

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add rows.

        Args:
            predictions: One text per input; any number, none included.
            references: One group of at least one text per input.

        Raises:
            UsageError: The counts differ or a group is empty.
        """
        self.packed.append(pack(to_rows(predictions, references)).to(self.device))

    def compute(self) -> Tensor:
        """Score all rows of all processes.

        Returns:
            float64, shape (): full precision, as the official script's figures are compared to.

        Raises:
            UsageError: No process has seen a row.
        """
        packed = self.packed if isinstance(self.packed, Tensor) else torch.cat(self.packed)
        rows = unpack(packed)
        if not rows:
            raise UsageError(f"{type(self).__name__} has no rows to score; call update with predictions first")
        return torch.tensor(self.score(rows), dtype=torch.float64)

    @abstractmethod
    def score(self, rows: Sequence[Row]) -> float:
        """Score rows; what a subclass adds."""
