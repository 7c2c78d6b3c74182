"""Interleaving and statistics, by a clock that is told what things take."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from red_lightning.benchmark.clocks import Measured, on_cpu
from red_lightning.benchmark.measure import Case, Goal, Variant, compare, count, spread
from red_lightning.benchmark.settings import Settings
from red_lightning.errors import UsageError


class Told:
    """Variants that write down when they run, and a clock that reads what each run took from a list."""

    def __init__(self, **seconds: list[float]) -> None:
        self.seconds = {name: iter([0.0, *values]) for name, values in seconds.items()}  # the first is the warm-up
        self.order: list[str] = []

    def variant(self, name: str, **options: Any) -> Variant:
        return Variant(name, lambda: self.order.append(name), **options)

    def clock(self, run: Callable[[], Any]) -> Measured:
        run()
        seconds = next(self.seconds[self.order[-1]])
        return Measured(seconds, 2 * seconds, int(seconds))


def test_every_round_runs_every_variant_once_in_an_order_of_its_own() -> None:
    names = ("a", "b", "c", "d")
    told = Told(**{name: [1.0] * 20 for name in names})
    compare("", [told.variant(name) for name in names], Settings(rounds=20), clock=told.clock)
    assert told.order[:4] == list(names)  # nothing of which is measured
    rounds = [tuple(told.order[first : first + 4]) for first in range(4, 84, 4)]
    assert len(told.order) == 84
    assert all(sorted(order) == list(names) for order in rounds)
    assert len(set(rounds)) > 8


def test_the_order_follows_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        told = Told(a=[1.0] * 9, b=[1.0] * 9, c=[1.0] * 9)
        compare("", [told.variant(name) for name in "abc"], Settings(rounds=9, seed=seed), clock=told.clock)
        orders.append(told.order)
    assert orders[0] == orders[1] != orders[2]


def test_ratios_are_taken_within_a_round() -> None:
    # the machine is three times slower in the last rounds, which the ratios do not show
    told = Told(base=[1.0, 1.0, 3.0, 3.0, 3.0], rival=[2.0, 2.0, 6.0, 6.0, 9.0])
    base, rival = compare(
        "shape", [told.variant("base"), told.variant("rival", work=4)], Settings(rounds=5), clock=told.clock
    )
    assert (base.ratios, base.ratio) == ([1.0] * 5, 1.0)
    assert rival.amounts == [0.5, 0.5, 1.5, 1.5, 2.25]
    assert rival.ratio == statistics.median([0.5, 0.5, 0.5, 0.5, 0.75])
    assert rival.wall == [1.0, 1.0, 3.0, 3.0, 4.5]
    assert rival.wall_ratios == rival.ratios
    assert rival.peak_bytes == 9
    assert (rival.group, rival.unit) == ("shape", "s/step")


def test_a_gain_says_how_many_times_as_fast() -> None:
    told = Told(base=[6.0, 6.0, 6.0], rival=[2.0, 3.0, 1.0])
    variants = [told.variant("base"), told.variant("rival")]
    goals = {"rival": Goal(cpu=2.5, cuda=99.0)}
    _, rival = compare("", variants, Settings(rounds=3), "example", gain=True, goals=goals, clock=told.clock)
    assert (rival.ratios, rival.ratio) == ([3.0, 2.0, 6.0], 3.0)
    assert (rival.goal, rival.met, rival.unit) == (2.5, True, "s/example")


def test_a_goal_is_met_at_most_or_of_a_gain_at_least() -> None:
    goal = {"b": Goal(cpu=2.0)}
    assert count("", {"a": 1, "b": 2}, Settings(), goals=goal)[1].met is True
    assert count("", {"a": 1, "b": 2.1}, Settings(), goals=goal)[1].met is False
    assert count("", {"a": 2.1, "b": 1}, Settings(), gain=True, goals=goal)[1].met is True
    assert count("", {"a": 1.9, "b": 1}, Settings(), gain=True, goals=goal)[1].met is False
    assert count("", {"a": 1, "b": 2}, Settings())[1].met is None
    for size, reached in (("tiny", None), ("small", True), ("paper", None)):
        assert count("", {"a": 1, "b": 2}, Settings(size=size), goals=goal)[1].met is reached  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is a goal for 'c', which is none of the variants: a, b"):
        count("", {"a": 1, "b": 1}, Settings(), goals={"c": Goal(1.0)})


def test_what_comes_before_a_run_is_not_measured() -> None:
    done: list[str] = []

    def clock(run: Callable[[], Any]) -> Measured:
        done.append("start")
        run()
        done.append("stop")
        return Measured(1.0, 1.0)

    variant = Variant("a", lambda: done.append("run"), before=lambda: done.append("before"))
    compare("", [variant], Settings(rounds=1), clock=clock)
    assert done == ["before", "start", "run", "stop"] * 2


def test_quartiles() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_the_clock_of_a_cpu_counts_work() -> None:
    measured = on_cpu(lambda: sum(range(100_000)))
    assert measured.seconds > 0
    assert measured.wall > 0
    assert measured.peak_bytes is None


def test_a_case_has_no_checks_unless_it_says_so() -> None:
    case = Case("title", [])
    assert (dict(case.checks), list(case.notes)) == ({}, [])


@pytest.mark.parametrize("option", ["rounds", "threads"])
def test_settings_out_of_range(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is 0, but must be at least 1"):
        Settings(**{option: 0})
