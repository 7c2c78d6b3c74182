"""The command ``benchmark``: measure speed and memory on this machine."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from red_lightning.benchmark import CASES
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.errors import UsageError, nearest


def main(args: Sequence[str]) -> None:
    """Run the command. The list of cases appears before any large import.

    Args:
        args: The command line without the name of the command.
    """
    if list(args) in (["list"], ["--cases", "list"], ["--cases=list"]):
        _print_list()
    else:
        importlib.import_module("red_lightning.cli.parser").run(benchmark, args)


def benchmark(
    cases: list[str] = ["all"],  # noqa: B006 - never changed; a literal default shows in --help
    output: Path | None = None,
    **settings: Any,
) -> None:
    """Measure speed and memory of the package on this machine, against the usual way to do the same work.

    In each round every variant of a case runs once, in shuffled order, in one process. Times are process times on a
    CPU, which other programs do not lengthen, and device times on a GPU. A ratio is the median over the rounds of the
    variant's amount divided by the baseline's: 0.5 is half the time or memory. Models have random weights of a stated
    shape. Only data and tokenizers are downloaded. The exit status is 1 if a case failed or a check does not hold.

    Args:
        cases: Names of cases, such as step_time,many_edits. "all" runs every case, "list" lists them.
        output: JSON file for all results, the machine and the versions. An existing file is replaced.
        settings: See :class:`~red_lightning.benchmark.benchmark_settings.Settings`.

    Raises:
        UsageError: A case is unknown, something that a case needs is missing, or the file cannot be written.
        SystemExit: With status 1: a case failed, or a check does not hold.
    """
    names = [name.strip() for given in cases for name in given.split(",") if name.strip()]
    if names == ["list"]:
        _print_list()
        return
    if unknown := [name for name in names if name not in (*CASES, "all")]:
        raise UsageError(f"there is no case '{unknown[0]}': {nearest(unknown[0], CASES)}")
    from red_lightning.benchmark.benchmark_report import run_cases

    chosen = [*CASES] if "all" in names else list(dict.fromkeys(names))
    if not run_cases(chosen, Settings(**settings), output and output.expanduser()):
        sys.exit(1)


def _print_list() -> None:
    width = max(map(len, CASES))
    print("\n".join(f"{name:<{width}}  {what}" for name, (_, what) in CASES.items()))
