"""The order of the rows is a function of (seed, epoch), for any number of processes and from any position."""

import random
from typing import Any

import pytest
import torch

from red_lightning.data.resumable_loader import EpochBatches, ResumableLoader, evaluation_loader, moved


def epoch(
    rows: int, size: int, world: int, number: int = 0, seed: int | None = 3, lengths: list[int] | None = None
) -> list[list[list[int]]]:
    """For each process, its batches of one epoch: ``size`` rows a process."""
    ranks = []
    for rank in range(world):
        batches = EpochBatches(rows, size * world, seed, rank, world, lengths)
        batches.set_epoch(number)
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    return ranks


def make_loader(rows: int = 11, lengths: list[int] | None = None, **options: Any) -> ResumableLoader:
    batches = EpochBatches(rows, 2, seed=5, lengths=lengths)
    return ResumableLoader(list(range(rows)), batches, collate_fn=list, **options)


def text_lengths(rows: int) -> list[int]:
    """Lengths as texts have them: most are short, a few very long."""
    draw = random.Random(rows)
    return [1 + round(draw.lognormvariate(3, 0.6)) for _ in range(rows)]


def padding(batches: list[list[int]], lengths: list[int]) -> float:
    """Slots of the padded batches for each token."""
    slots = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return slots / sum(lengths)


def test_order_depends_on_the_seed_and_the_epoch_only() -> None:
    first = epoch(20, 3, 1)
    assert first == epoch(20, 3, 1)
    assert first != epoch(20, 3, 1, number=1)
    assert first != epoch(20, 3, 1, seed=4)
    batches = EpochBatches(20, 3, 3)
    batches.set_epoch(1)
    list(batches)
    batches.set_epoch(0)
    assert [list(batches)] == first  # whatever was drawn before


def test_neighbouring_seeds_and_epochs_share_no_order() -> None:
    orders = set()
    for seed in range(8):
        batches = EpochBatches(30, 1, seed)
        for number in range(8):
            batches.set_epoch(number)
            orders.add(tuple(batches.order()))
    assert len(orders) == 64


def test_without_a_seed_the_rows_keep_their_order() -> None:
    assert epoch(5, 2, 1, seed=None) == [[[0, 1], [2, 3], [4]]]
    assert epoch(5, 2, 1, seed=None, lengths=[3, 1, 2, 1, 3]) == [[[0, 1], [2, 3], [4]]]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 11, 12, 13, 24])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("sort", [False, True])
def test_every_row_once_per_epoch(world: int, rows: int, size: int, sort: bool) -> None:
    ranks = epoch(rows, size, world, lengths=text_lengths(rows) if sort else None)
    assert len({len(batches) for batches in ranks}) == 1  # else a process waits for ever
    assert all(batch for batches in ranks for batch in batches)
    every = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(row for row in every if row >= 0) == list(range(rows))
    fillers = [row for row in every if row < 0]
    last = rows % (size * world)
    assert len(fillers) == (world - last if 0 < last < world else 0)
    assert {~row for row in fillers} <= set(range(rows))


@pytest.mark.parametrize("number", [0, 4])
@pytest.mark.parametrize("lengths", [None, text_lengths(26)])
def test_global_batches_are_the_same_for_any_number_of_processes(number: int, lengths: list[int] | None) -> None:
    alone = [sorted(batch) for batch in epoch(26, 6, 1, number, lengths=lengths)[0]]
    for world, size in ((2, 3), (3, 2), (6, 1)):
        ranks = epoch(26, size, world, number, lengths=lengths)
        together = [sorted(row for batch in step for row in batch if row >= 0) for step in zip(*ranks, strict=True)]
        assert together == alone


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = text_lengths(10_000)
    together, mixed = epoch(10_000, 32, 1, lengths=lengths)[0], epoch(10_000, 32, 1)[0]
    assert padding(together, lengths) < 1.15
    assert padding(mixed, lengths) > 1.4
    shares = epoch(10_000, 16, 2, lengths=lengths)
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in together]
    assert sum(padding(share, lengths) for share in shares) < 1.15


def test_no_part_of_an_epoch_has_the_short_rows() -> None:
    lengths = text_lengths(3_200)
    tokens = [
        [sum(lengths[row] for row in batch) for batch in epoch(3_200, 32, 1, n, 3, lengths)[0]] for n in range(40)
    ]
    quarters = [sum(sum(batches[first : first + 25]) for batches in tokens) for first in range(0, 100, 25)]
    assert max(quarters) / min(quarters) < 1.15


def test_batches_of_like_length_differ_between_epochs() -> None:
    lengths = text_lengths(1_000)
    first, other = (epoch(1_000, 8, 1, number, lengths=lengths) for number in (0, 1))
    assert first == epoch(1_000, 8, 1, lengths=lengths)
    assert not {frozenset(batch) for batch in first[0]} & {frozenset(batch) for batch in other[0]}
    assert first != epoch(1_000, 8, 1, seed=4, lengths=lengths)
    assert epoch(64, 8, 1, lengths=[5] * 64) != epoch(64, 8, 1, number=1, lengths=[5] * 64)


@pytest.mark.parametrize("rows", [5, 32, 37, 1_005])
def test_the_smaller_batch_comes_last(rows: int) -> None:
    for number in range(3):
        batches = epoch(rows, 8, 1, number, lengths=text_lengths(rows))[0]
        assert [len(batch) for batch in batches] == [8] * (rows // 8) + [rows % 8] * (rows % 8 > 0)


@pytest.mark.parametrize("world", [1, 2])
def test_batches_of_like_length_can_be_entered_anywhere(world: int) -> None:
    whole = epoch(101, 4, world, lengths=text_lengths(101))
    for rank in range(world):
        for first in (0, 1, 7, len(whole[rank])):
            batches = EpochBatches(101, 4 * world, 3, rank, world, text_lengths(101))
            batches.first_batch = first
            assert list(batches) == whole[rank][first:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lengths", [None, text_lengths(11)])
def test_loader_continues_behind_what_was_handed_out(workers: int, lengths: list[int] | None) -> None:
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0, "lengths": lengths}
    whole = make_loader(**options)
    whole.batches.set_epoch(3)
    expected = list(whole)
    whole.batches.set_epoch(4)
    following = list(whole)
    interrupted = make_loader(**options)
    interrupted.batches.set_epoch(3)
    batches = iter(interrupted)
    taken = [next(batches), next(batches)]  # workers are further ahead by now
    state = interrupted.state_dict()
    resumed = make_loader(**options)
    resumed.load_state_dict(state)
    resumed.batches.set_epoch(3)
    assert taken + list(resumed) == expected
    assert len(resumed) == len(expected) == 6
    resumed.batches.set_epoch(4)
    assert list(resumed) == following  # the next epoch is whole again


def test_what_was_handed_out_is_known_before_the_next_batch() -> None:
    """A validation may be repeated, and a checkpoint written after it, before a resumed run takes its first batch."""
    loader = make_loader()
    loader.load_state_dict({"position": 4})
    assert loader.state_dict()["position"] == 4


def test_a_finished_epoch_continues_with_the_next() -> None:
    loader = make_loader()
    list(loader)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    resumed.batches.set_epoch(1)
    loader.batches.set_epoch(1)
    assert list(resumed) == list(loader)
    assert len(list(resumed)) == 6


def test_the_epoch_may_be_set_after_the_iterator_was_made() -> None:
    late, early = make_loader(), make_loader()
    iterator = iter(late)
    late.batches.set_epoch(2)
    early.batches.set_epoch(2)
    assert list(iterator) == list(early)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 7, 12])
def test_evaluation_hands_each_row_once(world: int, rows: int) -> None:
    numbered = [{"row": row} for row in range(rows)]
    loaders = [evaluation_loader(numbered, 2, rank, world, collate_fn=list) for rank in range(world)]
    handed = [row for loader in loaders for batch in loader for row in batch]
    assert sorted(row["row"] for row in handed if row["row"] >= 0) == list(range(rows))
    assert all("filler" in row for row in handed if row["row"] < 0)
    assert {len([row for batch in loader for row in batch]) for loader in loaders} == {-(-rows // world)}
    for loader in loaders:
        for batch in list(loader)[:-1]:
            assert [row["row"] for row in batch] == [batch[0]["row"], batch[0]["row"] + 1]  # in the given order
        assert len(list(loader)) == len(loader)


def test_a_batch_is_moved_with_all_its_tensors() -> None:
    batch = {"input_ids": torch.ones(2, 3), "row": [4, 5], "texts": [{"text": "a"}], "step_weight": 7, "none": None}
    there = moved(batch, torch.device("meta"))
    assert there.keys() == batch.keys()
    assert there["input_ids"].device.type == "meta"
    assert all(there[name] is batch[name] for name in batch if name != "input_ids")
    here = moved(batch, torch.device("cpu"))
    assert here["input_ids"] is batch["input_ids"]
