"""What the benchmark prints, and what it writes."""

import importlib
import json
import os
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from red_lightning.artifacts.files import write_whole
from red_lightning.benchmark import CASES
from red_lightning.benchmark.measure import Case, Row, spread
from red_lightning.benchmark.settings import Settings
from red_lightning.errors import UsageError, cannot_write

LIBRARIES = ("red-lightning", "torch", "lightning", "transformers", "peft", "datasets", "tokenizers")
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def run_cases(names: Sequence[str], settings: Settings, output: Path | None, console: Console | None = None) -> None:
    """Measure cases one after the other, print a table of each, and write everything to a file.

    A case whose data or libraries are missing is left out and says why, if there are others.

    Args:
        names: Names of :data:`~red_lightning.benchmark.CASES`.
        settings: How to measure.
        output: The JSON file, written anew after each case; None for none.
        console: Where to print.

    Raises:
        UsageError: No case could run, or the file cannot be written.
    """
    console = console or Console()
    disable_progress_bar()
    torch.set_num_threads(settings.threads)
    document: dict[str, Any] = {"machine": machine(settings), "versions": versions(), "settings": asdict(settings)}
    document["cases"] = {}
    failed: dict[str, UsageError] = {}
    with_goal: list[tuple[str, Row]] = []
    say_machine(document, console)
    for name in names:
        console.print(f"\n{name}: {CASES[name]}", style="bold", highlight=False, markup=False, soft_wrap=True)
        started = time.perf_counter()
        try:
            case = _measured(name, settings)
        except UsageError as error:
            failed[name] = error
            document["cases"][name] = {"left_out": str(error)}
            console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        else:
            print_case(case, console)
            with_goal += [(name, row) for row in case.rows if row.goal is not None]
            document["cases"][name] = as_json(case, time.perf_counter() - started)
        if output is not None:
            _write(output.expanduser(), document)
    if failed and len(failed) == len(names):
        raise failed[names[0]]
    if len(names) > 1:
        print_goals(with_goal, console)
    if output is not None:
        console.print(f"\nwrote {output}", highlight=False, markup=False, soft_wrap=True)


def _measured(name: str, settings: Settings) -> Case:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what other libraries use of each other
            case: Case = importlib.import_module(f"red_lightning.benchmark.{name}").measure(settings)
    except torch.cuda.OutOfMemoryError as error:
        way = "give --dtype bfloat16, or a smaller --size"
        raise UsageError(f"the GPU has too little memory for the case {name}; {way}") from error
    return case


def print_case(case: Case, console: Console) -> None:
    """Print a table of each group of rows, and what else was found."""
    console.print(case.title, highlight=False, markup=False, soft_wrap=True)
    for group, unit in dict.fromkeys((row.group, row.unit) for row in case.rows):
        rows = [row for row in case.rows if (row.group, row.unit) == (group, unit)]
        columns = [_cells(row, row is rows[0]) for row in rows]
        table = Table(title=group, title_justify="left", title_style="italic")
        for name in columns[0]:
            if any(cells[name] for cells in columns):
                table.add_column(name, justify="left" if name == "variant" else "right")
        for cells in columns:
            table.add_row(*(cells[str(column.header)] for column in table.columns))
        console.print(table)
    for statement, holds in case.checks.items():
        style = None if holds else "bold red"
        mark = "holds" if holds else "DOES NOT HOLD"
        console.print(f"{statement}: {mark}", style=style, highlight=False, markup=False, soft_wrap=True)
    for note in case.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def print_goals(rows: Sequence[tuple[str, Row]], console: Console) -> None:
    """Print the rows that have a goal, each with its case, in one table."""
    table = Table(title="what has a goal", title_justify="left", title_style="italic")
    for column in ("case", "measured on", "variant"):
        table.add_column(column)
    for column in ("ratio", "goal", "met"):
        table.add_column(column, justify="right")
    for name, row in rows:
        cells = _cells(row, baseline=False)
        table.add_row(name, row.group, row.variant, cells["ratio"], cells["goal"], cells["met"])
    if rows:
        console.print()
        console.print(table)


def _cells(row: Row, baseline: bool) -> dict[str, str]:
    """What the table says of a row, by column; a column without any text is left out."""
    timed = row.unit.startswith("s/")
    amounts = spread(row.amounts)
    goal = "" if row.goal is None else (">= " if row.gain else "<= ") + ratio(row.goal, row.gain)
    return {
        "variant": row.variant,
        f"per {row.unit[2:]}" if timed else row.unit: seconds(amounts.median) if timed else f"{amounts.median:,.0f}",
        "quartiles": f"{seconds(amounts.low)} - {seconds(amounts.high)}" if len(row.amounts) > 1 else "",
        "ratio": "baseline" if baseline else ratio(row.ratio, row.gain),
        "wall ratio": "" if baseline or not row.wall else ratio(spread(row.wall_ratios).median, row.gain),
        "peak memory": f"{row.peak_bytes / 1e6:,.1f} MB" if row.peak_bytes else "",
        "goal": goal,
        "met": {None: "", True: "yes", False: "no"}[row.met],
    }


def seconds(amount: float) -> str:
    """A time in the unit that suits it: ``1.25 s``, ``13.4 ms``, ``8.10 us``."""
    scale, unit = next(((scale, unit) for scale, unit in SCALES if amount >= scale), SCALES[-1])
    return f"{amount / scale:.3g} {unit}"


def ratio(number: float, gain: bool) -> str:
    """A ratio: ``1.012``, or ``3.20x`` of a gain."""
    digits = 3 if not gain and number < 10 else 2 if number < 100 else 0
    return f"{number:,.{digits}f}" + ("x" if gain else "")


def as_json(case: Case, took: float) -> dict[str, Any]:
    """A case with all its rounds, as plain values."""
    rows = [
        asdict(row) | {"median": spread(row.amounts)._asdict(), "ratio": spread(row.ratios)._asdict(), "met": row.met}
        for row in case.rows
    ]
    return {
        "title": case.title,
        "seconds": took,
        "rows": rows,
        "checks": dict(case.checks),
        "notes": list(case.notes),
    }


def machine(settings: Settings) -> dict[str, Any]:
    """The machine in words and numbers; nothing that names it or its user."""
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "python": platform.python_version(),
    }


def versions() -> dict[str, str | None]:
    """Versions of the libraries that a speed depends on; None for those that are not installed."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def say_machine(document: Mapping[str, Any], console: Console) -> None:
    """Print where and how it is measured."""
    machine, settings = document["machine"], document["settings"]
    where = machine["gpu"] or f"{machine['processor']}, {settings['threads']} of {machine['cores']} cores"
    libraries = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if number)
    how = f"{settings['dtype']}, size {settings['size']}, {settings['rounds']} rounds"
    console.print(f"{where}; {how}\n{libraries}", highlight=False, markup=False, soft_wrap=True)


def _processor() -> str:
    """The processor's name; on Linux, platform knows the architecture alone."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines() if information.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(f"'{path}'", error, "give another --output") from error
