"""Data loading that is a pure function of (seed, epoch, position), so that a resumed run continues exactly."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

STRETCH = 50
"""Batches over which rows are sorted by length."""


class EpochBatches(Sampler[list[int]]):
    """The batches of one process in each epoch, in an order that depends on the seed and the epoch only.

    Each process takes its share of every global batch, so that the rows of a step are the same for any number of
    processes. The last, smaller batch is kept; if it has fewer rows than processes, it is left out.

    Args:
        rows: Number of rows.
        batch_size: Rows of one batch of all processes together; a multiple of their number.
        seed: Seeds the order; None keeps the rows as they are.
        rank: This process.
        world_size: Number of processes.
        lengths: Length of each row, so that rows of like length share a batch (which saves padding); the batches still
            differ in each epoch. None, or no seed, leaves the order as it is.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.lengths = lengths
        self.epoch = 0
        self.first_batch = 0

    @property
    def sampler(self) -> "EpochBatches":
        """Where Lightning looks for :meth:`set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch comes next."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The row numbers of this epoch, over all processes."""
        if self.seed is None:
            return list(range(self.rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        return order if self.lengths is None else self._by_length(order, self.lengths, generator)

    def _by_length(self, order: list[int], lengths: Sequence[int], generator: torch.Generator) -> list[int]:
        """Sort within stretches of many batches: short enough that each epoch brings other rows together."""
        size = self.batch_size
        whole = self.rows - self.rows % size  # the smaller batch stays last, or positions would shift behind it
        batches = []
        for start in range(0, whole, STRETCH * size):
            stretch = sorted(order[start : min(start + STRETCH * size, whole)], key=lengths.__getitem__)
            batches += [stretch[first : first + size] for first in range(0, len(stretch), size)]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [row for batch in shuffled for row in batches[batch]] + order[whole:]

    def __len__(self) -> int:
        return self.rows // self.batch_size + (self.rows % self.batch_size >= self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        order, size = self.order(), self.batch_size
        for batch in range(self.first_batch, len(self)):
            yield order[batch * size : (batch + 1) * size][self.rank :: self.world_size]


class ResumableLoader(DataLoader[Any]):
    """A training loader whose position within the epoch is saved with a checkpoint (Lightning asks for it).

    Args:
        dataset: The rows.
        batches: Their order.
        epoch_length: Says after how many batches an epoch ends, if that is before all rows were seen.
        **options: Passed to the DataLoader.
    """

    def __init__(
        self, dataset: Any, batches: EpochBatches, epoch_length: Callable[[], float] | None = None, **options: Any
    ) -> None:
        super().__init__(dataset, batch_sampler=batches, **options)
        self.epoch_length = epoch_length
        self.batches = batches
        self.start = 0
        self.position = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, because Lightning sets the epoch after it has made the iterator.
        start, self.start = self.start, 0
        self.batches.first_batch = start
        for batch, rows in enumerate(super().__iter__(), start=start):
            self.position = batch + 1
            yield rows

    def state_dict(self) -> dict[str, int]:
        """The number of batches of this epoch that were handed out; 0 after the last one."""
        length = min(len(self), self.epoch_length() if self.epoch_length else math.inf)
        return {"position": self.position if self.position < length else 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the batches that were handed out."""
        self.start = state["position"]


def evaluation_loader(
    dataset: Sequence[Any], batch_size: int, rank: int, world_size: int, **options: Any
) -> DataLoader[Any]:
    """A loader that hands out every row exactly once over all processes, whatever their number.

    Args:
        dataset: The rows, in the order in which they share batches (sort by length to save padding).
        batch_size: Rows of one batch.
        rank: This process.
        world_size: Number of processes.
        **options: Passed to the DataLoader.
    """
    return DataLoader(dataset, batch_size=batch_size, sampler=range(rank, len(dataset), world_size), **options)  # type: ignore[arg-type]
