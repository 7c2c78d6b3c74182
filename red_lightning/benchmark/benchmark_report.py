"""Run cases one after the other, print their tables, and write all results to a JSON file."""

import gc
import importlib
import json
import logging
import os
import platform
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import rich.table
import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from red_lightning.atomic_files import write_whole
from red_lightning.benchmark import CASES
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Row, Table, measure, spread
from red_lightning.errors import UsageError, cannot_write, first_line, usage_error_in

LIBRARIES = ("red-lightning", "torch", "lightning", "transformers", "peft", "datasets", "tokenizers")
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
NO_MARKUP: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def run_cases(names: Sequence[str], settings: Settings, output: Path | None, console: Console | None = None) -> bool:
    """Run cases one after the other.

    If data or libraries of a case are missing, the reason is printed and the other cases run. If a case fails in
    another way, its traceback goes to the standard error and the other cases run.

    Args:
        names: Names of :data:`~red_lightning.benchmark.CASES`.
        settings: How to measure.
        output: The JSON file, written again after each case. None writes no file.
        console: Where to print.

    Returns:
        Whether no case failed and every check holds.

    Raises:
        UsageError: No case could run, or the file cannot be written. The file is tried before any case runs.
    """
    console = console or _wide_console()
    if output is not None:
        require_writable(output)
    disable_progress_bar()
    torch.set_num_threads(settings.threads)
    found: dict[str, dict[str, Any]] = {}
    document = {
        "machine": machine(settings),
        "versions": {name: version(name) for name in LIBRARIES},
        "settings": asdict(settings),
        "cases": found,
    }
    _print_machine(document, console)
    for name in names:
        console.print(f"\n{name}: {CASES[name][1]}", style="bold", **NO_MARKUP)
        try:
            found[name] = run_case(name, settings, console)
        except Exception as error:
            missing = usage_error_in(error)
            if missing is None:
                found[name] = {"failed": f"{type(error).__name__}: {first_line(error)}"}
                console.print(f"the case {name} FAILED: {found[name]['failed']}", style="bold red", **NO_MARKUP)
                traceback.print_exception(error)
            else:
                found[name] = {"left_out": str(missing)}
                console.print(f"left out: {missing}" if len(names) > 1 else "left out", style="yellow", **NO_MARKUP)
        gc.collect()  # frees what the frames of an exception hold
        if output is not None:
            _write(output, document)
    if all("left_out" in case for case in found.values()):
        raise UsageError(found[names[0]]["left_out"] if len(names) == 1 else "no case could run, for the reasons above")
    if output is not None:
        console.print(f"\nwrote {output}", **NO_MARKUP)
    return not any("failed" in case or not all(case.get("checks", {}).values()) for case in found.values())


def run_case(name: str, settings: Settings, console: Console) -> dict[str, Any]:
    """Measure the tables of a case, print each, and return all results as JSON values.

    Raises:
        UsageError: Data, a library or GPU memory is missing.
    """
    started, result = time.perf_counter(), dict[str, Any](rows=[], checks={}, notes=[])
    try:
        with quiet():
            case = getattr(importlib.import_module(f"red_lightning.benchmark.{CASES[name][0]}"), name)
            for table in case(settings):
                rows = measure(table, settings)
                print_table(table, rows, console)
                result["rows"] += [_as_json(row) for row in rows]
                result["checks"] |= {f"{table.title}: {text}": holds for text, holds in table.checks.items()}
                result["notes"] += [note for note in table.notes if note not in result["notes"]]
                del table  # its models, before the next are made
    except torch.cuda.OutOfMemoryError as error:
        way = "give --dtype bfloat16, or a smaller --size"
        raise UsageError(f"the GPU has too little memory for the case {name}; {way}") from error
    return result | {"seconds": time.perf_counter() - started}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages below the level of errors."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def print_table(table: Table, rows: Sequence[Row], console: Console) -> None:
    """Print a grid for each unit, then checks and notes."""
    for unit in dict.fromkeys(row.unit for row in rows):
        chosen = [_cells(row) for row in rows if row.unit == unit]
        chosen[0] |= dict.fromkeys(("ratio", "wall ratio") if "wall ratio" in chosen[0] else ("ratio",), "baseline")
        grid = rich.table.Table(title=table.title, title_justify="left", title_style="italic")
        for column in chosen[0]:
            grid.add_column(column, justify="left" if column == "variant" else "right", overflow="fold")
        for cells in chosen:
            grid.add_row(*cells.values())
        console.print(grid)
    for statement, holds in table.checks.items():
        mark, style = ("holds", None) if holds else ("DOES NOT HOLD", "bold red")
        console.print(f"{statement}: {mark}", style=style, **NO_MARKUP)
    for note in table.notes:
        console.print(f"note: {note}", **NO_MARKUP)


def _cells(row: Row) -> dict[str, str]:
    """Return the text of each column."""
    own, ratio = spread(row.amounts), f"{spread(row.ratios).median:.3g}"
    if not row.wall:
        return {"variant": row.variant, row.unit: f"{own.median:,.0f}", "ratio": ratio}
    quartiles = f"{seconds(own.low)} - {seconds(own.high)}"
    wall_ratio = f"{spread(row.wall_ratios).median:.3g}"
    times = {f"per {row.unit[2:]}": seconds(own.median), "quartiles": quartiles}
    return {"variant": row.variant, **times, "ratio": ratio, "wall ratio": wall_ratio}


def seconds(amount: float) -> str:
    """Return a time with a suitable unit: ``1.25 s``, ``13.4 ms``, ``8.1 us``."""
    scale, unit = next(((scale, unit) for scale, unit in SCALES if amount >= scale), SCALES[-1])
    return f"{amount / scale:.3g} {unit}"


def _as_json(row: Row) -> dict[str, Any]:
    return asdict(row) | {"median": spread(row.amounts)._asdict(), "ratio": spread(row.ratios)._asdict()}


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written. An existing file stays unchanged.

    Raises:
        UsageError: It is a folder, or its folder does not exist or accepts no files.
    """
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder; give the file to write, such as {path / 'speed.json'}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of --output {path} does not exist; create it first")
    try:
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(f"'{path}'", error, "give another --output") from error


def machine(settings: Settings) -> dict[str, Any]:
    """Describe the machine, without the names of the machine and its user."""
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Return the name of the processor. On Linux, platform knows the architecture only."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines() if information.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _print_machine(document: Mapping[str, Any], console: Console) -> None:
    machine, settings = document["machine"], document["settings"]
    where = machine["gpu"] or f"{machine['processor']}, {settings['threads']} of {machine['cores']} cores"
    libraries = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    how = f"{settings['dtype']}, size {settings['size']}, {settings['rounds']} rounds"
    console.print(f"{where}; {how}\n{libraries}", **NO_MARKUP)


def _wide_console() -> Console:
    """Return the terminal, or a console of 1,000 columns if the output is a file."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    return console


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(f"'{path}'", error, "give another --output") from error
