"""Threads that take turns: in one order, whatever the machine does."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from red_lightning.strategies.turns import StoppedError, Turns


def everybody(waiting: Mapping[int, Any], last: int) -> list[int]:
    return sorted(waiting, key=lambda member: (member != last, member))


def test_one_at_a_time_in_order() -> None:
    story: list[Any] = []

    def total(called: Mapping[int, Any]) -> dict[int, Any]:
        story.append(("together", dict(sorted(called.items()))))
        return dict.fromkeys(called, sum(called.values()))

    turns = Turns(3, everybody, total, lambda before, after: story.append((before, after)))

    def work(me: int) -> None:
        for number in range(me + 1):  # the first ends first
            story.append((me, number, turns.meet(me, 10 * number + me)))

    turns.start([partial(work, me) for me in range(3)])
    turns.wait()
    assert turns.ended == {0: None, 1: None, 2: None}
    first = ("together", {0: 0, 1: 1, 2: 2})
    second = ("together", {1: 11, 2: 12})
    third = ("together", {2: 22})
    steps = [step for step in story if len(step) == 3 or step[0] == "together"]
    assert steps == [first, (2, 0, 3), (0, 0, 3), (1, 0, 3), second, (1, 1, 23), (2, 1, 23), third, (2, 2, 22)]
    handed = [step for step in story if len(step) == 2 and step[0] != "together"]
    assert handed[0] == (None, 0)
    assert handed[-1] == (2, None)
    assert all(before[1] == after[0] for before, after in pairwise(handed))


def test_what_is_not_served_waits() -> None:
    """Those that ask for another thing are served by themselves."""
    served: list[list[str]] = []

    def alike(waiting: Mapping[int, Any], last: int) -> list[int]:
        first = next(iter(waiting.values()))
        return [member for member, called in waiting.items() if called == first]

    def note(called: Mapping[int, Any]) -> dict[int, Any]:
        served.append(sorted(f"{member}{value}" for member, value in called.items()))
        return dict.fromkeys(called)

    turns = Turns(3, alike, note)
    turns.start([partial(lambda me: [turns.meet(me, what) for what in ("ab", "ba", "ab")[me]], me) for me in range(3)])
    turns.wait()
    assert served == [["0a", "2a"], ["0b", "1b", "2b"], ["1a"]]


def test_an_error_of_what_is_computed_is_everybodys() -> None:
    def fail(called: Mapping[int, Any]) -> dict[int, Any]:
        raise ValueError("no memory")

    turns = Turns(2, everybody, fail)
    turns.start([lambda: turns.meet(0, None), lambda: turns.meet(1, None)])
    turns.wait()
    assert [str(error) for error in turns.ended.values()] == ["no memory"] * 2


def test_the_others_go_on_without_one_that_failed() -> None:
    turns = Turns(2, everybody, lambda called: dict.fromkeys(called, len(called)))
    got: list[int] = []

    def fail() -> None:
        turns.meet(0, None)
        raise KeyError("x")

    turns.start([fail, lambda: got.extend(turns.meet(1, None) for _ in range(3))])
    turns.wait()
    assert isinstance(turns.ended[0], KeyError)
    assert got == [2, 1, 1]


def test_stopped() -> None:
    """Neither a thread that waits nor one that has not begun goes on."""
    turns = Turns(3, everybody, lambda called: dict.fromkeys(called))
    turns.start([lambda: turns.meet(0, None), lambda: turns.stop(), lambda: pytest.fail("it begins")])
    turns.wait()
    assert isinstance(turns.ended[0], StoppedError)
    assert turns.ended[1] is None
    assert isinstance(turns.ended[2], StoppedError)
