"""The folder of a study: what became of each cell, and how one is run.

``study.json`` says whose folder it is, ``runs/CELL`` is a run's own folder, and ``cells/`` holds a record, a log and
(while it runs) a lock of each cell.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from red_lightning.artifacts.files import write_whole
from red_lightning.errors import UsageError
from red_lightning.reproduction.cells import Cell
from red_lightning.reproduction.locks import HeldError, lock, owner_of
from red_lightning.reproduction.study import Study

Kind = Literal["done", "running", "queued", "failed", "stale", "waiting"]
NOT_ITS_OWN = ("RED_LIGHTNING_RUN", "PL_GLOBAL_SEED", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_")
"""Beginnings of the variables that would make a run part of another one."""


@dataclass(frozen=True)
class State:
    """What became of a cell.

    Attributes:
        kind: ``stale`` is a run whose settings were others; ``queued`` waits in SLURM.
        reason: Why it failed, what it waits for, or who runs it.
        seconds: How long it took, if it is done.
        result: The contents of its ``results.json``, if it is done.
    """

    kind: Kind
    reason: str = ""
    seconds: float | None = None
    result: dict[str, Any] | None = None


class StudyFolder:
    """Where a study writes.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.runs, self.cells = path, path / "runs", path / "cells"

    def claim(self, study: Study) -> None:
        """Create the folder, or see that it is the study's own.

        Raises:
            UsageError: It belongs to another study, or cannot be written.
        """
        self.require(study)
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            identity = {"file": str(study.path.resolve()), "name": study.name, "axes": list(study.axes)}
            write_whole(self.path / "study.json", json.dumps(identity, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"the study's folder '{self.path}' cannot be written: {error.strerror}") from error

    def require(self, study: Study) -> None:
        """Refuse a folder that is another study's."""
        identity = _read(self.path / "study.json")
        if identity is None:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise UsageError(f"'{self.path}' holds something that is no study; choose another --folder")
            return
        theirs = Path(identity.get("file", ""))
        moved = not theirs.exists() or theirs == study.path.resolve()
        if not moved or identity.get("name") != study.name or identity.get("axes") != list(study.axes):
            raise UsageError(f"'{self.path}' is the folder of another study, '{theirs}'; choose another --folder")

    def record(self, cell: Cell) -> dict[str, Any]:
        """What was written down about a cell; empty where it never ran."""
        return _read(self.cells / f"{cell.name}.json") or {}

    def note(self, cell: Cell, **what: Any) -> None:
        """Write down what becomes of a cell."""
        content = {**self.record(cell), "digest": cell.digest, **what}
        write_whole(self.cells / f"{cell.name}.json", json.dumps(content, indent=2) + "\n")

    def state(self, cell: Cell) -> State:
        """What became of a cell."""
        owner = owner_of(self.cells / f"{cell.name}.lock")
        return State("running", owner) if owner else self._left(cell)

    def _left(self, cell: Cell) -> State:
        """What the last run of a cell left behind."""
        record, run = self.record(cell), self.runs / cell.name
        if not record:
            return State("waiting")
        if record["digest"] != cell.digest:
            return State("stale", "its settings have changed since it ran")
        if record["status"] == "queued":
            return State("queued", "waits in SLURM")
        if record["status"] in ("failed", "interrupted"):
            return State("failed" if record["status"] == "failed" else "waiting", record.get("reason", ""))
        results = run / "results.json"
        if record["status"] == "running" and not (results.exists() and results.stat().st_mtime >= record["started"]):
            return State("waiting", "its process ended before it did")
        result = _read(results)
        if result is None or not {"scores", "selection"} <= {*result}:
            return State("failed", f"'{results}' is missing or half-written")
        return State("done", seconds=record.get("seconds"), result=result)

    def command(self, cell: Cell) -> list[str]:
        """The command line that runs a cell: from the beginning, or from where it was interrupted."""
        record, run = self.record(cell), self.runs / cell.name
        replaced = (run / "results.json").exists() or record.get("digest", cell.digest) != cell.digest
        return cell.command(self.runs, "--run.overwrite=true" if replaced else "--ckpt_path=auto")

    def execute(self, cell: Cell, env: Mapping[str, str], stop: threading.Event | None = None) -> State:
        """Run a cell in a process of its own, unless it is done or another process runs it.

        Args:
            cell: It.
            env: Variables beside those of this process.
            stop: Interrupts the run when it is set.
        """
        try:
            with lock(self.cells / f"{cell.name}.lock") as held:
                if (already := self._left(cell)).kind == "done":
                    return already
                self._take_over(cell)
                command = self.command(cell)
                started = time.time()
                self.note(cell, status="running", started=started, reason="", command=command)
                with (self.cells / f"{cell.name}.log").open("wb") as log:
                    process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment(env)
                    )
                    held.name_child(process.pid)
                    while process.poll() is None:
                        if stop is not None and stop.is_set():
                            process.send_signal(signal.SIGINT)
                            stop = None  # once
                        try:
                            process.wait(1)
                        except subprocess.TimeoutExpired:
                            held.renew()
                self._note_end(cell, process.returncode, time.time() - started)
        except HeldError as owner:
            return State("running", str(owner))
        return self.state(cell)

    def _take_over(self, cell: Cell) -> None:
        """Give a run the checkpoints of the one that trained with its settings, so that it begins with its test."""
        run, trained = self.runs / cell.name, self.runs / (cell.trained or "")
        if cell.trained is None or run.exists() or not (trained / "results.json").exists():
            return
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(trained / "config.yaml", run)
        for file in trained.glob("checkpoints/*.ckpt"):
            if file.is_file():
                target = run / "checkpoints" / file.name
                try:
                    target.hardlink_to(file)  # they are written anew under another name, never changed
                except OSError:  # not on every file system
                    shutil.copy2(file, target)

    def _note_end(self, cell: Cell, status: int, seconds: float) -> None:
        if status == 0:
            self.note(cell, status="done", seconds=round(seconds, 1))
        elif status in (130, -signal.SIGINT, -signal.SIGTERM):
            self.note(cell, status="interrupted", reason="interrupted")
        else:
            self.note(cell, status="failed", reason=_reason(self.cells / f"{cell.name}.log", status))


def _reason(log: Path, status: int) -> str:
    """Why a run failed: the sentence that it ended with."""
    if status < 0:
        return f"killed by signal {-status}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")] or lines
    return said[-1].removeprefix("error: ") if said else f"ended with status {status}"


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(NOT_ITS_OWN)}, **more}


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is absent or half-written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
