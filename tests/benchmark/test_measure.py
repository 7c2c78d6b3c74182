"""Interleaving and statistics, with a clock that returns prepared times."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Row, Table, measure, on_cpu, ratios, spread
from red_lightning.errors import UsageError


class Prepared:
    """Variants that record when they run, and a clock that returns the prepared seconds of each run."""

    def __init__(self, **seconds: list[float]) -> None:
        self.seconds = {name: iter([0.0, *values]) for name, values in seconds.items()}  # the first is the warm-up
        self.order: list[str] = []

    def clock(self, run: Callable[[], Any]) -> tuple[float, float]:
        run()
        seconds = next(self.seconds[self.order[-1]])
        return seconds, 2 * seconds

    def measure(self, rounds: int, seed: int = 0, **options: Any) -> list[Row]:
        variants = {name: lambda name=name: self.order.append(name) for name in self.seconds}
        return measure(Table("shape", variants, **options), Settings(rounds=rounds, seed=seed), self.clock)


def test_every_round_runs_every_variant_once_in_its_own_order() -> None:
    prepared = Prepared(**{name: [1.0] * 20 for name in "abcd"})
    prepared.measure(20)
    assert prepared.order[:4] == list("abcd")  # the warm-up
    rounds = [tuple(prepared.order[first : first + 4]) for first in range(4, 84, 4)]
    assert len(prepared.order) == 84
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 8


def test_the_order_follows_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        prepared = Prepared(a=[1.0] * 9, b=[1.0] * 9, c=[1.0] * 9)
        prepared.measure(9, seed)
        orders.append(prepared.order)
    assert orders[0] == orders[1] != orders[2]


def test_ratios_are_taken_within_a_round() -> None:
    # the machine is three times slower in the last rounds, which the ratios do not show
    prepared = Prepared(base=[1.0, 1.0, 3.0, 3.0, 3.0], other=[2.0, 2.0, 6.0, 6.0, 9.0])
    base, other = prepared.measure(5, work={"base": 1, "other": 4})
    assert base.ratios == [1.0] * 5
    assert other.amounts == [0.5, 0.5, 1.5, 1.5, 2.25]
    assert spread(other.ratios).median == statistics.median([0.5, 0.5, 0.5, 0.5, 0.75])
    assert other.wall == [1.0, 1.0, 3.0, 3.0, 4.5]
    assert other.wall_ratios == other.ratios
    assert (other.table, other.unit) == ("shape", "s/step")


def test_counts_follow_the_times_with_their_own_baseline() -> None:
    counts = {"bytes": {"large": 8.0, "small": 2.0}, "tokens": {"all": 10.0}}
    rows = Prepared(a=[1.0]).measure(1, work=2, unit="row", counts=counts)
    assert [(row.variant, row.unit, row.amounts, row.ratios) for row in rows] == [
        ("a", "s/row", [0.5], [1.0]),
        ("large", "bytes", [8.0], [1.0]),
        ("small", "bytes", [2.0], [0.25]),
        ("all", "tokens", [10.0], [1.0]),
    ]
    assert not any(row.wall for row in rows[1:])


def test_ratios_of_nothing() -> None:
    assert ratios([0.0, 1.0, 1.0], [0.0, 0.0, 2.0]) == [1.0, float("inf"), 0.5]


def test_quartiles() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_the_clock_of_a_cpu_measures_process_and_wall_time() -> None:
    process, wall = on_cpu(lambda: sum(range(100_000)))
    assert process > 0
    assert wall > 0


@pytest.mark.parametrize("option", ["rounds", "threads"])
def test_settings_out_of_range(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is 0, but must be at least 1"):
        Settings(**{option: 0})
