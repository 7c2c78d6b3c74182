"""The process that runs a cell: start it, stop it, and say why it failed."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from red_lightning.studies.locks import sign

NOT_ITS_OWN = ("RED_LIGHTNING_RUN", "PL_GLOBAL_SEED", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_")
"""Prefixes of the environment variables that would make a run part of another one."""
INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
"""Exit statuses of an interrupted run: killed by SIGINT or SIGTERM, or stopped in order (128 + the signal)."""
OUTSIDE = re.compile("no space left|disk quota|file too large|out of memory|cannot be written", re.IGNORECASE)
"""Words in the messages of failures that the settings of a run did not cause."""
SAID = re.compile(r"(?:^|\])(?:error: |(?=stopped by ))(.+)")
"""The last sentence of a failed run; a progress bar may precede it on the same line."""
PROGRESS = re.compile(r"\d%\||it/s|━")


def run_process(
    command: Sequence[str], log: Path, env: Mapping[str, str], held: BinaryIO, stop: threading.Event | None
) -> int:
    """Run a command that holds a lock as long as it lives.

    Args:
        command: The command line.
        log: The file that gets its output.
        env: Environment variables to add to those of this process.
        held: The locked file.
        stop: Interrupts the command when set.

    Returns:
        The exit status. It is that of an interrupted process if ``stop`` was set: a run that has only begun may end
        with any status then.
    """
    told = False
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(env),
            pass_fds=[held.fileno()],
        )
        sign(held, process.pid)
        while process.poll() is None:
            if stop is not None and stop.is_set() and not told:
                process.terminate()  # a command that a shell started with & ignores SIGINT
                told = True
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
    return -signal.SIGINT if stop is not None and stop.is_set() else process.returncode


def why(log: Path, status: int) -> tuple[str, bool]:
    """Return why a process failed, and whether something other than its settings caused it."""
    if status < 0:
        reason = f"killed by signal {-status}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    else:
        lines = _lines(log)
        said = [found[1] for line in lines if (found := SAID.search(line))]
        said = said or [line for line in lines if not PROGRESS.search(line)]
        reason = said[-1] if said else f"ended with status {status}"
    return reason, status not in (1, 2) or OUTSIDE.search(reason) is not None


def _lines(log: Path) -> list[str]:
    """Return the last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        return [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(NOT_ITS_OWN)}, **more}
