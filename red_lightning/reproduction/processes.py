"""A process that runs cells: how it is begun, told to stop, and why it ended."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from red_lightning.reproduction.locks import Lock

NOT_ITS_OWN = ("RED_LIGHTNING_RUN", "PL_GLOBAL_SEED", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_")
"""Beginnings of the variables that would make a run part of another one."""
INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
"""How a run ends that was told to: by the signals themselves, or in order (128 + their number)."""
OUTSIDE = re.compile("no space left|disk quota|file too large|out of memory|cannot be written", re.IGNORECASE)
"""What is said of a failure for which the settings of a run are not to blame."""
SAID = re.compile(r"(?:^|\])(?:error: |(?=stopped by ))(.+)")
"""The sentence with which a run ends; a progress bar may stand before it on its line."""
PROGRESS = re.compile(r"\d%\||it/s|━")


def run_process(
    command: Sequence[str], log: Path, env: Mapping[str, str], locks: Iterable[Lock], stop: threading.Event | None
) -> int:
    """Run a command, and hold locks as long as it lives.

    Args:
        command: It.
        log: Where it writes.
        env: Variables beside those of this process.
        locks: The locks.
        stop: Interrupts it when it is set.

    Returns:
        Its status; that of an interrupted process if it was told to stop, whatever that does to a run that begins.
    """
    told = False
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=_environment(env)
        )
        for held in locks:
            held.name_child(process.pid)
        while process.poll() is None:
            if stop is not None and stop.is_set() and not told:
                process.terminate()  # SIGINT is ignored in what a shell runs with &
                told = True
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                for held in locks:
                    held.renew()
    return -signal.SIGINT if stop is not None and stop.is_set() else process.returncode


def why(log: Path, status: int) -> tuple[str, bool]:
    """Why a process failed: the sentence that it ended with, and whether the settings of its runs are not to blame."""
    if status < 0:
        reason = f"killed by signal {-status}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    else:
        lines = [line for line in _lines(log) if not PROGRESS.search(line)]
        reason = complaint(log) or (lines[-1] if lines else f"ended with status {status}")
    return reason, status not in (1, 2) or is_outside(reason)


def complaint(log: Path) -> str | None:
    """The last complaint in a log; None if there is none."""
    said = [found[1] for line in _lines(log) if (found := SAID.search(line))]
    return said[-1] if said else None


def is_outside(reason: str) -> bool:
    """Whether a run failed for something other than its settings, such as a full disk."""
    return OUTSIDE.search(reason) is not None


def _lines(log: Path) -> list[str]:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        return [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(NOT_ITS_OWN)}, **more}
