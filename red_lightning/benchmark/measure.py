"""Measure the variants of a table in interleaved rounds, each round in a shuffled order, in one process.

Other work on the machine slows all variants of a round. The ratio of two times of one round is therefore more reliable
than the times. The result is the median of these ratios.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, NamedTuple

import torch

from red_lightning.benchmark.benchmark_settings import Settings

Clock = Callable[[Callable[[], Any]], tuple[float, float]]
"""Runs a function. Returns the seconds of the process (or device), and the wall seconds."""


@dataclass(frozen=True)
class Table:
    """One comparison of a case. In every mapping the first variant is the baseline.

    Attributes:
        title: What the variants have in common, such as the shape of the model.
        variants: Variant -> function that does the work once.
        unit: Unit of the work: ``step``, ``example``, ``row`` or ``token``.
        work: Units of work in one run. A mapping if the variants differ.
        counts: Unit -> variant -> exact amount, such as bytes or tokens.
        checks: Statement -> whether it holds. A false statement makes the benchmark fail.
        notes: Anything that a reader must know, such as what is missing and why.
    """

    title: str
    variants: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    unit: str = "step"
    work: float | Mapping[str, float] = 1.0
    counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    checks: Mapping[str, bool] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """The measured amounts of one variant.

    Attributes:
        table: Title of the table.
        variant: Name of the variant.
        unit: ``s/step``, ``s/token``, ``bytes``, ...
        amounts: One amount per round. An exact count is one number.
        ratios: Each amount divided by the baseline's amount of the same round.
        wall: Wall seconds per unit of work, one per round. Empty for counts.
        wall_ratios: The ratios of the wall seconds.
    """

    table: str
    variant: str
    unit: str
    amounts: list[float]
    ratios: list[float]
    wall: list[float] = field(default_factory=list)
    wall_ratios: list[float] = field(default_factory=list)


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def measure(table: Table, settings: Settings, clock: Clock | None = None) -> list[Row]:
    """Time each variant of a table, and divide its times and counts by those of the baseline.

    Args:
        table: The comparison.
        settings: Rounds, seed and device.
        clock: Measures one run. None chooses the clock of the device.

    Returns:
        The rows of the times, then those of each count.
    """
    rows = _timed(table, settings, clock or (on_cuda if settings.device == "cuda" else on_cpu))
    for unit, amounts in table.counts.items():
        base = next(iter(amounts.values()))
        rows += [Row(table.title, name, unit, [own], ratios([own], [base])) for name, own in amounts.items()]
    return rows


def _timed(table: Table, settings: Settings, clock: Clock) -> list[Row]:
    names, order = list(table.variants), random.Random(settings.seed)
    for name in names:
        _run(table.variants[name], clock)  # warm-up
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(settings.rounds):
        for name in order.sample(names, len(names)):
            seconds[name].append(_run(table.variants[name], clock))
    rows: list[Row] = []
    for name in names:
        work = table.work[name] if isinstance(table.work, Mapping) else table.work
        own, wall = ([each / work for each in column] for column in zip(*seconds[name], strict=True))
        base = rows[0] if rows else Row("", "", "", own, [], wall)
        compared = ratios(own, base.amounts), wall, ratios(wall, base.wall)
        rows.append(Row(table.title, name, f"s/{table.unit}", own, *compared))
    return rows


def _run(function: Callable[[], Any], clock: Clock) -> tuple[float, float]:
    gc.collect(1)  # frees what earlier runs left; the oldest generation takes longer than many a run
    gc.disable()  # else a collection counts for the variant that happens to run
    try:
        return clock(function)
    finally:
        gc.enable()


def on_cpu(function: Callable[[], Any]) -> tuple[float, float]:
    """Measure the process time, which other programs do not lengthen, and the wall time."""
    wall, process = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - process, time.perf_counter() - wall


def on_cuda(function: Callable[[], Any]) -> tuple[float, float]:
    """Measure the time between two events of the device, and the wall time."""
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    wall = time.perf_counter()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000, time.perf_counter() - wall


def ratios(amounts: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divide amounts by those of the baseline. 0 divided by 0 is 1."""
    return [own / other if other else float("inf") if own else 1.0 for own, other in zip(amounts, base, strict=True)]


def spread(numbers: Sequence[float]) -> Spread:
    """Return median and quartiles. Those of a single number are the number."""
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, middle, high = quantiles(numbers, n=4, method="inclusive")
    return Spread(middle, low, high)
