"""Random subsets: their size, the shares of the classes, and what they depend on."""

from collections import Counter
from collections.abc import Hashable
from itertools import pairwise

import pytest

from red_lightning.data.subsets import hold_out, subset, train_rows
from red_lightning.errors import UsageError

CLASSES: dict[str, list[Hashable]] = {
    "one": ["a"] * 50,
    "even": ["a", "b"] * 25,
    "uneven": ["a"] * 60 + ["b"] * 30 + ["c"] * 7 + ["d"] * 3,
    "rare": ["a"] * 97 + ["b", "c", "d"],
    "many small": [index % 40 for index in range(120)],
    "each its own": list(range(30)),
    "long tail": [int(200 / (index % 20 + 1)) % 17 for index in range(150)],
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_size(name: str) -> None:
    """The size is exact, rows are distinct and in order, and no class gives more than it has."""
    strata = CLASSES[name]
    existing = Counter(strata)
    for size in range(len(strata) + 1):
        rows = subset(len(strata), size, 3, strata)
        assert rows == sorted(set(rows))
        assert len(rows) == size
        assert set(rows) <= set(range(len(strata)))
        counts = Counter(strata[row] for row in rows)
        assert counts <= existing
        if size >= len(existing):
            assert set(counts) == set(existing)


@pytest.mark.parametrize("name", CLASSES)
def test_shares_are_within_one_row(name: str) -> None:
    """Wherever no class needs more than its share to be there at all."""
    strata = CLASSES[name]
    existing = Counter(strata)
    tried = 0
    for size in range(len(strata) + 1):
        exact = {label: size * count / len(strata) for label, count in existing.items()}
        if len(existing) <= size and min(exact.values()) < 1:
            continue
        tried += 1
        counts = Counter(strata[row] for row in subset(len(strata), size, 3, strata))
        assert all(abs(counts[label] - share) < 1 for label, share in exact.items())
    assert tried > 1


def test_rare_classes_take_the_place_of_frequent_ones_only() -> None:
    strata = CLASSES["rare"]
    for size in range(4, 98):
        counts = Counter(strata[row] for row in subset(100, size, 3, strata))
        # the shares of b, c and d are below 1, so each gives its only row, and a the rest
        assert counts == {"a": size - 3, "b": 1, "c": 1, "d": 1}


def test_fewer_rows_than_classes() -> None:
    strata = CLASSES["many small"]
    for size in (1, 7, 39):
        counts = Counter(strata[row] for row in subset(120, size, 3, strata))
        assert len(counts) == size
        assert set(counts.values()) == {1}


def test_equal_classes_give_equally() -> None:
    strata = CLASSES["many small"]
    for size, each in ((40, 1), (80, 2), (120, 3)):
        assert set(Counter(strata[row] for row in subset(120, size, 3, strata)).values()) == {each}


def test_many_classes_of_few_rows() -> None:
    strata = [index % 1_500 for index in range(4_500)]
    counts = Counter(strata[row] for row in subset(4_500, 2_250, 3, strata))
    assert len(counts) == 1_500
    assert Counter(counts.values()) == {1: 750, 2: 750}


@pytest.mark.parametrize("strata", [None, CLASSES["uneven"]])
def test_it_depends_on_the_seed_only(strata: list[Hashable] | None) -> None:
    chosen = {seed: tuple(subset(100, 20, seed, strata)) for seed in range(20)}
    assert len(set(chosen.values())) == 20
    assert chosen == {seed: tuple(subset(100, 20, seed, strata)) for seed in range(20)}


@pytest.mark.parametrize("strata", [None, CLASSES["uneven"]])
def test_every_row_has_its_chance(strata: list[Hashable] | None) -> None:
    """Each row is in a fifth of the subsets of a fifth: 80 of 400, standard deviation 8."""
    times = Counter(row for seed in range(400) for row in subset(100, 20, seed, strata))
    assert set(times) == set(range(100))
    if strata is None:
        assert all(40 < count < 120 for count in times.values())


def test_smaller_subsets_are_parts_of_larger_ones() -> None:
    sizes = [set(subset(50, size, 3)) for size in range(51)]
    assert all(small < large for small, large in pairwise(sizes))


def test_labels_of_any_kind() -> None:
    assert subset(6, 3, 3, [(1, 2), "a", None] * 2) == subset(6, 3, 3, [0, 1, 2] * 2)


@pytest.mark.parametrize(
    ("wanted", "count", "rows"),
    [(1, 1, 1), (7, 9, 7), (9, 9, 9), (1.0, 9, 9), (0.5, 9, 4), (0.1, 2_490, 249), (0.999, 9, 9), (1e-9, 9, 1)],
)
def test_a_number_or_a_share_of_rows(wanted: int | float, count: int, rows: int) -> None:
    assert train_rows(wanted, count) == rows


@pytest.mark.parametrize("wanted", [0, -1, 10])
def test_an_impossible_number_is_refused(wanted: int) -> None:
    with pytest.raises(UsageError, match=rf"data\.train_size is {wanted}, but the train split has 9 rows"):
        train_rows(wanted, 9)


@pytest.mark.parametrize("wanted", [0.0, -0.5, 1.5, 10.5, float("nan")])
def test_an_impossible_share_is_refused(wanted: float) -> None:
    with pytest.raises(UsageError, match=rf"data\.train_size is {wanted}: give a whole number of rows, or a share"):
        train_rows(wanted, 9)


@pytest.mark.parametrize(("size", "rows"), [(7, 7), (0.25, 10), (0.001, 1), (7.0, 7), (1, 1)])
def test_held_out_rows_are_as_many_as_asked_for(size: float, rows: int) -> None:
    parts = hold_out(range(40), {"test": size}, 3)
    assert len(parts["test"]) == rows
    assert sorted(parts["train"] + parts["test"]) == list(range(40))
    assert all(part == sorted(part) for part in parts.values())


def test_a_held_out_split_does_not_depend_on_those_after_it() -> None:
    few, many = (hold_out(range(60), {"test": 9, "validation": size}, 1) for size in (5, 20))
    assert few["test"] == many["test"] != hold_out(range(60), {"test": 9, "validation": 5}, 2)["test"]
    assert set(few["validation"]) < set(many["validation"])


def test_rows_with_one_key_are_held_out_together() -> None:
    keys = [index % 12 for index in range(60)]
    parts = hold_out(keys, {"test": 7}, 5)
    assert len(parts["test"]) == 10  # two keys of five rows each
    assert not {keys[row] for row in parts["train"]} & {keys[row] for row in parts["test"]}


def test_no_rows_left_to_train_on() -> None:
    with pytest.raises(
        UsageError, match=r"too few different prompts \(2\) to train on after data\.test_size 3; give more rows"
    ):
        hold_out("aabb", {"test": 3}, 0)
