"""The process of a cell: start, stop and exit reason."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from red_lightning.studies.locks import Lock

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
    command: Sequence[str], log: Path, env: Mapping[str, str], held: Lock, stop: threading.Event | None
) -> int:
    """Run a command, and hold a lock as long as it lives.

    Args:
        command: It.
        log: Where it writes.
        env: Variables beside those of this process.
        held: The lock.
        stop: Interrupts it when it is set.

    Returns:
        Its status; that of an interrupted process if it was told to stop, whatever that does to a run that begins.
    """
    told = False
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=_environment(env)
        )
        held.name_child(process.pid)
        while process.poll() is None:
            if stop is not None and stop.is_set() and not told:
                process.terminate()  # SIGINT is ignored in what a shell runs with &
                told = True
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                held.renew()
    return -signal.SIGINT if stop is not None and stop.is_set() else process.returncode


def why(log: Path, status: int) -> tuple[str, bool]:
    """Return the sentence with which a process failed, and whether its settings are not to blame."""
    if status < 0:
        reason = f"killed by signal {-status}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    else:
        lines = _lines(log)
        said = [found[1] for line in lines if (found := SAID.search(line))]
        said = said or [line for line in lines if not PROGRESS.search(line)]
        reason = said[-1] if said else f"ended with status {status}"
    return reason, status not in (1, 2) or OUTSIDE.search(reason) is not None


def _lines(log: Path) -> list[str]:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        return [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(NOT_ITS_OWN)}, **more}
