"""Micro-batches: the rows of an optimizer step are the same, however they are divided, and so is their weight."""

import math
from typing import Any

import pytest

from red_lightning.data.resumable_loader import EpochBatches, ResumableLoader
from tests.data.test_resumable_loader import text_lengths

ROWS, STEP = 53, 12
LENGTHS = text_lengths(ROWS)
DIVISIONS = [(None, 1), (None, 3), (1, 1), (4, 3), (3, 2), (12, 1), (2, 6)]
KINDS: dict[str, dict[str, Any]] = {
    "in order": {},
    "by length": {"lengths": LENGTHS},
    "packed": {"lengths": LENGTHS, "packing": True},
    "of few groups": {"groups": [row % 7 for row in range(ROWS)]},
}


def ranks(micro: int | None, world: int, epoch: int = 2, first: int = 0, **options: Any) -> list[list[list[int]]]:
    """The micro-batches of each process."""
    every = []
    for rank in range(world):
        batches = EpochBatches(ROWS, STEP, 5, rank, world, micro_batch_size=micro, **options)
        batches.set_epoch(epoch)
        batches.first_batch = first * batches.accumulation
        every.append(list(batches))
        assert len(every[-1]) == len(batches) - batches.first_batch
    return every


def steps(every: list[list[list[int]]], micro: int | None, world: int) -> list[list[int]]:
    """The rows of each optimizer step, over all processes."""
    size = 1 if micro is None else STEP // (micro * world)
    found = []
    for first in range(0, len(every[0]), size):
        found.append(sorted(row for rank in every for batch in rank[first : first + size] for row in batch if row >= 0))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("micro", "world"), DIVISIONS)
def test_a_step_has_the_same_rows_however_it_is_divided(micro: int | None, world: int, kind: str) -> None:
    options = KINDS[kind]
    alone = steps(ranks(STEP if micro else None, 1, **options), STEP if micro else None, 1)
    assert sorted(row for step in alone for row in step) == list(range(ROWS))
    every = ranks(micro, world, **options)
    assert steps(every, micro, world) == alone
    assert len({len(rank) for rank in every}) == 1  # else a process waits for ever
    later = ranks(micro, world, first=2, **options)
    assert steps(later, micro, world) == alone[2:]


@pytest.mark.parametrize(("micro", "world"), [(1, 1), (4, 3), (3, 2)])
def test_packed_rows_of_a_step_have_like_lengths(micro: int, world: int) -> None:
    every = ranks(micro, world, **KINDS["packed"])
    whole = ROWS // STEP * (STEP // (micro * world))
    for first in range(0, whole, STEP // (micro * world)):
        parts = [batch for rank in every for batch in rank[first : first + STEP // (micro * world)]]
        tokens = [sum(LENGTHS[row] for row in part) for part in parts]
        # Graham's bound: no bin exceeds the mean by more than its last row, of which none is longer than the longest
        assert max(tokens) <= max(sum(tokens) / len(tokens) + max(LENGTHS), max(LENGTHS))


def test_rows_of_like_length_share_a_micro_batch() -> None:
    for batch, random in zip(ranks(3, 1, **KINDS["by length"])[0][:16], ranks(3, 1)[0][:16], strict=True):
        assert len(batch) == len(random) == 3
    slots = [
        sum(3 * max(LENGTHS[row] for row in batch) for batch in ranks(3, 1, **KINDS[kind])[0][:16])
        for kind in ("by length", "in order")
    ]
    assert slots[0] < 0.85 * slots[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("micro", "world"), DIVISIONS)
def test_every_micro_batch_knows_the_weight_of_its_step(micro: int | None, world: int, kind: str) -> None:
    batches = EpochBatches(ROWS, STEP, 5, 0, world, micro_batch_size=micro, weights=LENGTHS, **KINDS[kind])
    for number in range(len(batches)):
        step = number // batches.accumulation
        rows = batches.order()[step * STEP : (step + 1) * STEP]
        assert batches.step_weight(number, math.inf) == sum(LENGTHS[row] for row in rows)


def test_a_step_that_the_epochs_end_cuts_weighs_what_was_seen() -> None:
    batches = EpochBatches(ROWS, STEP, 5, micro_batch_size=2, weights=LENGTHS)
    rows = batches.order()
    assert batches.step_weight(6, 8) == batches.step_weight(7, 8) == sum(LENGTHS[row] for row in rows[12:16])
    assert batches.step_weight(5, 8) == sum(LENGTHS[row] for row in rows[:12])


@pytest.mark.parametrize(("before", "now"), [((2, 1), (4, 3)), ((None, 1), (1, 2)), ((3, 2), (None, 3))])
def test_an_epoch_goes_on_with_another_division(before: tuple[int | None, int], now: tuple[int | None, int]) -> None:
    (micro, world), (later_micro, later_world) = before, now
    first = EpochBatches(ROWS, STEP, 5, 0, world, micro_batch_size=micro)
    loader = ResumableLoader([{"row": row} for row in range(ROWS)], first, collate_fn=list)
    handed = iter(loader)
    for _ in range(2 * first.accumulation):
        next(handed)
    seen: list[int] = []
    for rank in range(later_world):
        batches = EpochBatches(ROWS, STEP, 5, rank, later_world, micro_batch_size=later_micro)
        later = ResumableLoader([{"row": row} for row in range(ROWS)], batches, collate_fn=list)
        later.load_state_dict(loader.state_dict())
        seen += [row["row"] for batch in later for row in batch if row["row"] >= 0]
    assert sorted([*first.order()[: 2 * STEP], *seen]) == list(range(ROWS))
