"""Interleaved measurements: in every round each variant runs once, in shuffled order, in one process.

Other work on the machine slows all variants of a round alike, so that the ratio of two times of one round tells more
than the times themselves; the median of these ratios is the result.
"""

import gc
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple

from red_lightning.benchmark.clocks import Clock, Measured, on_cpu, on_cuda
from red_lightning.benchmark.settings import Settings
from red_lightning.errors import UsageError


@dataclass(frozen=True)
class Variant:
    """One way to do some work.

    Attributes:
        name: What the table calls it.
        run: Does the work once.
        work: How many units of work (steps, examples, tokens) a run does.
        before: What is done before each run and not measured.
    """

    name: str
    run: Callable[[], Any]
    work: float = 1.0
    before: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Goal:
    """The ratio that a variant should reach; None where there is no goal.

    Attributes:
        cpu: On a CPU, with models of the size ``small``.
        cuda: On a GPU, with models of the size ``paper`` (those of the package are for an H200).
    """

    cpu: float | None = None
    cuda: float | None = None

    def on(self, settings: Settings) -> float | None:
        """The goal of what is measured so; None for sizes that it is not for."""
        goals = {("cpu", "small"): self.cpu, ("cuda", "paper"): self.cuda}
        return goals.get((settings.device, settings.size))


class Spread(NamedTuple):
    """The median of some numbers and their quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A variant that was measured, and how it compares with the baseline of its group.

    Attributes:
        group: What the baseline and its rivals have in common, such as the model's shape.
        variant: Its name.
        unit: What a number is about: ``s/step``, ``s/example``, ``bytes``.
        amounts: One for each round: seconds per unit of work, of the process on a CPU (all threads together), of the
            device on a GPU. An exact count is one number.
        ratios: One for each round: how many times the baseline's amount it is, or, of a ``gain``, the baseline's
            amount how many times this one.
        gain: Whether ratios say how many times as fast (or small) as the baseline the variant is.
        goal: What the median ratio should reach: at most, or, of a ``gain``, at least.
        wall: One for each round: seconds per unit of work that passed.
        wall_ratios: The ratios of those.
        peak_bytes: The most memory that a run took besides what was there before; known on a GPU.
    """

    group: str
    variant: str
    unit: str
    amounts: list[float]
    ratios: list[float]
    gain: bool = False
    goal: float | None = None
    wall: list[float] = field(default_factory=list)
    wall_ratios: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.gain else self.ratio <= self.goal


@dataclass(frozen=True)
class Case:
    """What a case found.

    Attributes:
        title: What is compared, in one line.
        rows: The variants of each group, its baseline first.
        checks: What must hold besides: statement -> whether it does. Exactness is such a statement.
        notes: What a reader should know, such as what was left out and why.
    """

    title: str
    rows: list[Row]
    checks: Mapping[str, bool] = field(default_factory=dict)
    notes: Sequence[str] = ()


def compare(
    group: str,
    variants: Sequence[Variant],
    settings: Settings,
    unit: str = "step",
    gain: bool = False,
    goals: Mapping[str, Goal] | None = None,
    clock: Clock | None = None,
) -> list[Row]:
    """Measure variants against the first of them.

    Each runs once before anything is measured.

    Args:
        group: What the table says above them.
        variants: The baseline, and its rivals.
        settings: Rounds, seed, device and size.
        unit: What their ``work`` counts.
        gain: Whether ratios shall say how many times as fast as the baseline a variant is.
        goals: Variant -> what its ratio should reach.
        clock: Measures a run; None for the device's.

    Returns:
        A row for each variant, in the given order.

    Raises:
        UsageError: A goal names no variant.
    """
    goals = goals or {}
    _require_known(goals, [variant.name for variant in variants])
    clock = clock or (on_cuda if settings.device == "cuda" else on_cpu)
    for variant in variants:
        _run(variant, clock)
    order = random.Random(settings.seed)
    rounds: list[dict[str, Measured]] = []
    for _ in range(settings.rounds):
        shuffled = order.sample(variants, len(variants))
        rounds.append({variant.name: _run(variant, clock) for variant in shuffled})
    amounts = {v.name: [measured[v.name].seconds / v.work for measured in rounds] for v in variants}
    walls = {v.name: [measured[v.name].wall / v.work for measured in rounds] for v in variants}
    base = variants[0].name
    return [
        Row(
            group=group,
            variant=name,
            unit=f"s/{unit}",
            amounts=amounts[name],
            ratios=_ratios(amounts[name], amounts[base], gain),
            gain=gain,
            goal=goals[name].on(settings) if name in goals else None,
            wall=walls[name],
            wall_ratios=_ratios(walls[name], walls[base], gain),
            peak_bytes=max((m[name].peak_bytes or 0 for m in rounds), default=0) or None,
        )
        for name in amounts
    ]


def count(
    group: str,
    amounts: Mapping[str, float],
    settings: Settings,
    unit: str = "bytes",
    gain: bool = False,
    goals: Mapping[str, Goal] | None = None,
) -> list[Row]:
    """Rows of exact counts, such as bytes or slots, against the first of them.

    Args:
        group: What the table says above them.
        amounts: Variant -> count; the first is the baseline.
        settings: Device and size, for their goals.
        unit: What is counted.
        gain: Whether ratios shall say how many times smaller than the baseline's a count is.
        goals: Variant -> what its ratio should reach.

    Raises:
        UsageError: A goal names no variant.
    """
    goals = goals or {}
    _require_known(goals, amounts)
    base = next(iter(amounts.values()))
    return [
        Row(
            group,
            name,
            unit,
            [amount],
            _ratios([amount], [base], gain),
            gain,
            goals[name].on(settings) if name in goals else None,
        )
        for name, amount in amounts.items()
    ]


def spread(numbers: Sequence[float]) -> Spread:
    """The median and the quartiles (those of a single number are the number)."""
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, middle, high = quantiles(numbers, n=4, method="inclusive")
    return Spread(middle, low, high)


def _run(variant: Variant, clock: Clock) -> Measured:
    if variant.before is not None:
        variant.before()
    gc.collect(1)  # what earlier runs left; the oldest generation takes longer than many a run
    gc.disable()  # a collection would be charged to whoever happens to run
    try:
        return clock(variant.run)
    finally:
        gc.enable()


def _ratios(amounts: Sequence[float], base: Sequence[float], gain: bool) -> list[float]:
    pairs = zip(amounts, base, strict=True)
    return [_quotient(other, own) if gain else _quotient(own, other) for own, other in pairs]


def _quotient(above: float, below: float) -> float:
    return above / below if below else float("inf") if above else 1.0


def _require_known(goals: Mapping[str, Goal], names: Sequence[str] | Mapping[str, float]) -> None:
    if unknown := [name for name in goals if name not in names]:
        raise UsageError(f"there is a goal for '{unknown[0]}', which is none of the variants: {', '.join(names)}")
