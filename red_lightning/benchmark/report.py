"""Run cases one after the other, and write what they found."""

import gc
import importlib
import json
import os
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from red_lightning.atomic_files import write_whole
from red_lightning.benchmark import CASES
from red_lightning.benchmark.measure import Case, Row, spread
from red_lightning.benchmark.quiet import quiet
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.tables import PLAIN_TEXT, print_case, print_goals, wide_console
from red_lightning.errors import UsageError, cannot_write, first_line, usage_error_in

LIBRARIES = ("red-lightning", "torch", "lightning", "transformers", "peft", "datasets", "tokenizers")


def run_cases(names: Sequence[str], settings: Settings, output: Path | None, console: Console | None = None) -> bool:
    """Measure cases one after the other, print a table of each, and write everything to a file.

    A case whose data or libraries are missing is left out and says why, if there are others. One that fails otherwise
    leaves its traceback on the standard error, and the others go on.

    Args:
        names: Names of :data:`~red_lightning.benchmark.CASES`.
        settings: How to measure.
        output: The JSON file, written anew after each case; None for none.
        console: Where to print.

    Returns:
        Whether no case failed, and all holds that must.

    Raises:
        UsageError: No case could run, or the file cannot be written, which is seen before any case runs.
    """
    console = console or wide_console()
    if output is not None:
        require_writable(output)
    disable_progress_bar()
    torch.set_num_threads(settings.threads)
    document: dict[str, Any] = {"machine": machine(settings), "versions": versions(), "settings": asdict(settings)}
    document["cases"] = {}
    found: dict[str, dict[str, Any]] = document["cases"]
    sound = True
    with_goal: list[tuple[str, Row]] = []
    say_machine(document, console)
    for name in names:
        console.print(f"\n{name}: {CASES[name]}", style="bold", **PLAIN_TEXT)
        started = time.perf_counter()
        try:
            case = _measured(name, settings)
        except Exception as error:
            missing = usage_error_in(error)
            sound &= missing is not None
            found[name] = {"left_out": str(missing)} if missing else _failed(name, error, console)
            if missing and len(names) > 1:
                like = next(other for other in found if found[other].get("left_out") == str(missing))
                reason = f": {missing}" if like == name else f", as {like}"
                console.print(f"left out{reason}", style="yellow", **PLAIN_TEXT)
        else:
            print_case(case, console)
            sound &= all(case.checks.values())
            with_goal += [(name, row) for row in case.rows if row.goal is not None]
            found[name] = as_json(case, time.perf_counter() - started)
        gc.collect()  # what the frames of an exception held
        if output is not None:
            _write(output, document)
    if all("left_out" in one for one in found.values()):
        raise UsageError(found[names[0]]["left_out"] if len(names) == 1 else "no case could run, for the reasons above")
    if len(names) > 1:
        print_goals(with_goal, console)
    if output is not None:
        console.print(f"\nwrote {output}", **PLAIN_TEXT)
    return sound


def _failed(name: str, error: Exception, console: Console) -> dict[str, str]:
    """Say that a case failed, and what of it is written."""
    what = f"{type(error).__name__}: {first_line(error)}"
    console.print(f"the case {name} FAILED: {what}", style="bold red", **PLAIN_TEXT)
    traceback.print_exception(error)
    return {"failed": what}


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written; one that is there stays as it is.

    Raises:
        UsageError: It is a folder, or its folder is missing or lets no file be made.
    """
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder; give the file to write, such as {path / 'speed.json'}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of --output {path} does not exist; create it first")
    try:
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(f"'{path}'", error, "give another --output") from error


def _measured(name: str, settings: Settings) -> Case:
    try:
        with quiet():
            case: Case = importlib.import_module(f"red_lightning.benchmark.{name}").measure(settings)
    except torch.cuda.OutOfMemoryError as error:
        way = "give --dtype bfloat16, or a smaller --size"
        raise UsageError(f"the GPU has too little memory for the case {name}; {way}") from error
    return case


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
    console.print(f"{where}; {how}\n{libraries}", **PLAIN_TEXT)


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
