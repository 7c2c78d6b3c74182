"""Data loading as a pure function of (seed, epoch, position), so that runs resume exactly."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from red_lightning.data.batch_sizes import accumulation
from red_lightning.data.packing import balanced
from red_lightning.data.source_groups import whole_groups

STRETCH = 50
"""Batches over which rows are sorted by length."""


class EpochBatches(Sampler[list[int]]):
    """The micro-batches of one process in each epoch, in an order that depends on the seed and the epoch only.

    The rows of an optimizer step are the same for any number of processes and any size of the micro-batches, packed or
    not: they are divided among both. The last step, which may have fewer rows, is kept. Where a process gets no row,
    it gets a filler (see :class:`Fillable`).

    Args:
        rows: Number of rows.
        batch_size: Rows of one optimizer step of all processes together.
        seed: Seeds the order; None keeps the rows as they are.
        rank: This process.
        world_size: Number of processes.
        lengths: Length of each row, so that rows of like length share a batch (which saves padding) or packed rows are
            of like length. None leaves the order as it is. Without accumulation, stretches of the epoch are sorted,
            and the batches still differ in each epoch; with it, the rows of each optimizer step are.
        micro_batch_size: Rows of one process at once, of which several are accumulated; None for no accumulation.
        packing: Divide the rows of a step so that each micro-batch has about as many tokens, to be packed into one row.
        weights: What each row counts in the loss of its step; None where nobody asks.
        groups: What each row belongs to, so that rows of one group share a batch (:func:`whole_groups`), and a
            micro-batch of it; None where rows belong to nothing. Lengths then do not matter.

    Raises:
        UsageError: The batch sizes and the number of processes do not divide.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | None = None,
        micro_batch_size: int | None = None,
        packing: bool = False,
        weights: Sequence[int] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.lengths, self.packing, self.weights, self.groups = lengths, packing, weights, groups
        self.micro_batch_size = micro_batch_size
        self.accumulation = accumulation(batch_size, micro_batch_size, world_size)
        self.epoch = 0
        self.first_batch = 0
        self._order: tuple[int, list[int]] | None = None

    @property
    def sampler(self) -> "EpochBatches":
        """Where Lightning looks for :meth:`set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch comes next."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The row numbers of this epoch, over all processes."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = (self.epoch, self._draw())
        return self._order[1]

    def micro_batches(self, step: int) -> list[list[list[int]]]:
        """The rows of one optimizer step of the epoch: for each micro-batch, those of each process."""
        rows = self.order()[step * self.batch_size : (step + 1) * self.batch_size]
        size = self.batch_size // self.accumulation  # of all processes
        count = math.ceil(len(rows) / size)
        if self.packing or self.groups is not None:
            parts = self._divided(rows, count * self.world_size)
            return [parts[first : first + self.world_size] for first in range(0, len(parts), self.world_size)]
        if self.lengths is not None and self.micro_batch_size is not None:
            rows = sorted(rows, key=self.lengths.__getitem__)
        chunks = [rows[first : first + size] for first in range(0, len(rows), size)]
        return [[chunk[rank :: self.world_size] for rank in range(self.world_size)] for chunk in chunks]

    def step_weight(self, batch: int, end: float) -> int:
        """What the rows of a whole optimizer step weigh, over all processes.

        Args:
            batch: A micro-batch of the step.
            end: The micro-batch before which the epoch ends, if that is before all rows were seen.
        """
        assert self.weights is not None
        step, within = divmod(batch, self.accumulation)
        last = min(end - (batch - within), self.accumulation)
        micro_batches = self.micro_batches(step)[: int(last)]
        return sum(self.weights[row] for ranks in micro_batches for rows in ranks for row in rows)

    def position(self, state: dict[str, int]) -> int:
        """The micro-batch that comes next where a checkpoint was written, perhaps with another accumulation."""
        before = state.get("accumulation", self.accumulation), state.get("batch_size", self.batch_size)
        if before == (self.accumulation, self.batch_size):
            return state["position"]
        return state["position"] // before[0] * before[1] // self.batch_size * self.accumulation

    def __len__(self) -> int:
        steps, rest = divmod(self.rows, self.batch_size)
        return steps * self.accumulation + math.ceil(rest / (self.batch_size // self.accumulation))

    def __iter__(self) -> Iterator[list[int]]:
        steps = math.ceil(self.rows / self.batch_size)
        first_step, skipped = divmod(self.first_batch, self.accumulation)
        for step in range(first_step, steps):
            for ranks in self.micro_batches(step)[skipped:]:
                yield ranks[self.rank] or [~ranks[0][0]]
            skipped = 0

    def _divided(self, rows: list[int], parts: int) -> list[list[int]]:
        """As many rows of a step after another to each part, so that groups stay together; or as many tokens."""
        if self.groups is not None:
            ends = [math.ceil(len(rows) * part / parts) for part in range(parts + 1)]
            return [rows[first:end] for first, end in pairwise(ends)]
        assert self.lengths is not None
        bins = balanced([self.lengths[row] for row in rows], parts)
        return [[rows[index] for index in part] for part in bins]

    def _draw(self) -> list[int]:
        if self.seed is None:
            return list(range(self.rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.groups is not None:
            return whole_groups(self.groups, self.batch_size, generator)
        order = torch.randperm(self.rows, generator=generator).tolist()
        if self.lengths is None or self.packing or self.micro_batch_size is not None:
            return order
        return self._by_length(order, self.lengths, generator)

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


class Fillable(Sequence[Any]):
    """Rows, of which a process that has none left gets a filler, so that all of them take part in every step.

    Row ``~n`` is the filler made of row n: the same but for ``filler: True`` and the row number -1. It counts nowhere.

    Args:
        rows: Dictionaries.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index] if index >= 0 else {**self.rows[~index], "filler": True, "row": -1}


class ResumableLoader(DataLoader[Any]):
    """A training loader whose position within the epoch is saved with a checkpoint (Lightning asks for it).

    Each batch also gets its ``step_weight``: what the rows of the whole optimizer step count.

    Args:
        dataset: The rows.
        batches: Their order.
        epoch_length: Says after how many batches an epoch ends, if that is before all rows were seen.
        **options: Passed to the DataLoader.
    """

    def __init__(
        self, dataset: Any, batches: EpochBatches, epoch_length: Callable[[], float] | None = None, **options: Any
    ) -> None:
        super().__init__(Fillable(dataset), batch_sampler=batches, **options)  # type: ignore[arg-type]
        self.epoch_length = epoch_length
        self.batches = batches
        self.start = 0
        self.position = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, because Lightning sets the epoch after it has made the iterator.
        start, self.start = self.start, 0
        self.batches.first_batch = start
        for number, batch in enumerate(super().__iter__(), start=start):
            self.position = number + 1
            if self.batches.weights is not None:
                batch["step_weight"] = self.batches.step_weight(number, self._length())
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches of this epoch that were handed out (0 after the last one), and what a batch was."""
        position = self.position if self.position < self._length() else 0
        return {
            "position": position,
            "accumulation": self.batches.accumulation,
            "batch_size": self.batches.batch_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the batches that were handed out."""
        self.start = self.position = self.batches.position(state)

    def _length(self) -> float:
        return min(len(self), self.epoch_length() if self.epoch_length else math.inf)


def evaluation_loader(
    dataset: Sequence[Any], batch_size: int, rank: int, world_size: int, **options: Any
) -> DataLoader[Any]:
    """A loader that hands out every row exactly once over all processes, whatever their number.

    Every process gets equally many rows, because sharded ones must take every step together: where rows run out, it
    gets a filler. The rows of a batch follow one another in the given order.

    Args:
        dataset: The rows, in the order in which they share batches (sort by length to save padding).
        batch_size: Rows of one batch.
        rank: This process.
        world_size: Number of processes.
        **options: Passed to the DataLoader.
    """
    size = batch_size * world_size  # of the batches of all processes that are taken at once
    whole = len(dataset) // size * size
    mine = [row for row in range(whole) if row % size // batch_size == rank]
    first, end = (whole + math.ceil((len(dataset) - whole) * part / world_size) for part in (rank, rank + 1))
    mine += range(first, end)
    if len(mine) < math.ceil(len(dataset) / world_size):
        mine.append(~(len(dataset) - 1))
    return DataLoader(Fillable(dataset), batch_size=batch_size, sampler=mine, **options)  # type: ignore[arg-type]


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device (Lightning's own way searches each list of a batch for more of them)."""
    later = device.type == "cuda"  # the processor goes on while page-locked memory is copied
    return {
        n: value.to(device, non_blocking=later) if isinstance(value, Tensor) else value for n, value in batch.items()
    }
