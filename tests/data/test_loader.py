"""The order of the rows is a function of (seed, epoch), for any number of processes and from any position."""

from typing import Any

import pytest

from red_lightning.data.loader import EpochBatches, ResumableLoader, evaluation_loader


def epoch(rows: int, size: int, world: int, number: int = 0, seed: int | None = 3) -> list[list[list[int]]]:
    """For each process, its batches of one epoch: ``size`` rows a process."""
    ranks = []
    for rank in range(world):
        batches = EpochBatches(rows, size * world, seed, rank, world)
        batches.set_epoch(number)
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    return ranks


def make_loader(rows: int = 11, **options: Any) -> ResumableLoader:
    return ResumableLoader(list(range(rows)), EpochBatches(rows, 2, seed=5), collate_fn=list, **options)


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


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 11, 12, 13, 24])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_row_once_per_epoch(world: int, rows: int, size: int) -> None:
    ranks = epoch(rows, size, world)
    assert len({len(batches) for batches in ranks}) == 1  # else a process waits for ever
    assert all(batch for batches in ranks for batch in batches)
    seen = sorted(row for batches in ranks for batch in batches for row in batch)
    last = rows % (size * world)
    left_out = last if last < world else 0
    assert len(seen) == len(set(seen)) == rows - left_out
    assert set(seen) <= set(range(rows))


@pytest.mark.parametrize("number", [0, 4])
def test_global_batches_are_the_same_for_any_number_of_processes(number: int) -> None:
    alone = [sorted(batch) for batch in epoch(26, 6, 1, number)[0]]
    for world, size in ((2, 3), (3, 2), (6, 1)):
        ranks = epoch(26, size, world, number)
        together = [sorted(row for batch in step for row in batch) for step in zip(*ranks, strict=True)]
        assert together == alone[: len(together)]  # a last batch smaller than the processes is left out
        assert len(alone) - len(together) == (world > 26 % 6)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_continues_behind_what_was_handed_out(workers: int) -> None:
    options = {"num_workers": workers, "persistent_workers": workers > 0}
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
    loaders = [evaluation_loader(list(range(rows)), 2, rank, world, collate_fn=list) for rank in range(world)]
    assert sorted(row for loader in loaders for batch in loader for row in batch) == list(range(rows))
    for loader in loaders:
        assert all(len(batch) == 2 for batch in list(loader)[:-1])
        assert len(list(loader)) == len(loader)
