"""The folder of a study: the state of each cell, and how to run one.

``study.json`` says whose folder it is, ``runs/CELL`` is a run's own folder, ``cells/`` holds a record, a log and (while
it runs) a lock of each cell, and ``earlier/CELL`` is the run that another one is to replace, until that has ended.
"""

import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError
from red_lightning.studies.cell_process import INTERRUPTED, run_process, why
from red_lightning.studies.cells import Cell
from red_lightning.studies.locks import HeldError, Lock, lock, owner_of
from red_lightning.studies.study_file import Study

Kind = Literal["done", "running", "queued", "failed", "stale", "waiting"]


@dataclass(frozen=True)
class State:
    """What became of a cell.

    Attributes:
        kind: ``stale`` is a run whose settings were others; ``queued`` waits in SLURM.
        reason: Why it failed, what it waits for, or who runs it.
        seconds: How long it took, if it is done.
        result: The contents of its ``results.json``, if it is done.
        killed: Whether it failed for something other than its settings (a signal, no memory, a full disk), so that
            nothing is known of these.
    """

    kind: Kind
    reason: str = ""
    seconds: float | None = None
    result: dict[str, Any] | None = None
    killed: bool = False


class StudyFolder:
    """Where a study writes.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.runs, self.cells, self.earlier = path, path / "runs", path / "cells", path / "earlier"

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
        if not moved or identity.get("name") != study.name:
            raise UsageError(f"'{self.path}' is the folder of another study, '{theirs}'; choose another --folder")
        if (axes := identity.get("axes") or []) != list(study.axes):
            raise UsageError(
                f"'{self.path}' holds runs of this study with the axes {', '.join(axes)}, but now it has "
                f"{', '.join(study.axes)}; choose another --folder"
            )

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
        record, results = self.record(cell), self._result(cell)
        if not record:
            return State("waiting")
        if record["digest"] != cell.digest:
            return State("stale", "its settings have changed since it ran")
        if record["status"] == "queued":
            return State("queued", "waits in SLURM")
        if record["status"] == "interrupted":
            return State("waiting", record.get("reason", ""))
        if record["status"] == "failed":
            return State("failed", record.get("reason", ""), killed=record.get("killed", False))
        if record["status"] == "running" and not (results.exists() and results.stat().st_mtime >= record["started"]):
            return State("waiting", "its process ended before it did")
        result = _read(results)
        if result is None or not {"scores", "selection"} <= {*result}:
            return State("failed", f"'{results}' is missing or half-written", killed=True)
        return State("done", seconds=record.get("seconds"), result=result)

    def command(self, cell: Cell) -> list[str]:
        """The command line that runs a cell: from the beginning, or from where it was interrupted."""
        place = [f"--run.folder={self.runs}", f"--run.name={cell.name}"]
        test = ["--run.test=false"] if cell.tried is not None else []
        begin = "--run.overwrite=true" if self._is_replaced(cell) else "--ckpt_path=auto"
        return [sys.executable, "-m", "red_lightning", "fit", *cell.options(), *place, *test, begin]

    def _is_replaced(self, cell: Cell) -> bool:
        """Whether what is in a run's folder cannot be continued."""
        return self.record(cell).get("digest", cell.digest) != cell.digest or self._result(cell).exists()

    def execute(self, cell: Cell, env: Mapping[str, str], stop: threading.Event | None = None) -> State:
        """Run a cell in a process, unless it is done or another process runs it.

        Args:
            cell: The cell.
            env: Variables beside those of this process.
            stop: Interrupts the run when it is set.
        """
        try:
            with lock(self.cells / f"{cell.name}.lock") as held:
                if self._left(cell).kind != "done":
                    self._run(cell, held, env, stop)
                return self._left(cell)
        except HeldError as owner:
            return State("running", str(owner))

    def _run(self, cell: Cell, held: Lock, env: Mapping[str, str], stop: threading.Event | None) -> None:
        """Run a cell whose lock is held, and write down how it ended."""
        started, log = time.time(), self.cells / f"{cell.name}.log"
        self.set_aside(cell)
        self.note(cell, status="running", started=started, reason="")  # from here on, what is there goes on
        self._take_over(cell)
        status = run_process(self.command(cell), log, env, held, stop)
        if status == 0 or self._result(cell).exists():
            self.note(cell, status="done", seconds=round(time.time() - started, 1))
            if self._left(cell).kind == "done":
                shutil.rmtree(self.earlier / cell.name, ignore_errors=True)
        elif status in INTERRUPTED:
            self.note(cell, status="interrupted", reason="interrupted")
        else:
            reason, killed = why(log, status)
            self.note(cell, status="failed", reason=reason, killed=killed)

    def _result(self, cell: Cell) -> Path:
        return self.runs / cell.name / "results.json"

    def set_aside(self, cell: Cell) -> None:
        """Keep what is in a run's folder but cannot be continued, before a note of the new settings hides that.

        A finished run is worth more than one that was broken off.
        """
        run, earlier = self.runs / cell.name, self.earlier / cell.name
        if not (run.exists() and self._is_replaced(cell)):
            return
        if (earlier / "results.json").exists() and not self._result(cell).exists():
            shutil.rmtree(run)
            return
        shutil.rmtree(earlier, ignore_errors=True)
        earlier.parent.mkdir(exist_ok=True)
        run.rename(earlier)

    def _take_over(self, cell: Cell) -> None:
        """Give a run the checkpoints of the one that trained with its settings, so that it begins with its test."""
        run, trained = self.runs / cell.name, self.runs / (cell.trained or "")
        if cell.trained is None or run.exists() or not (trained / "results.json").exists():
            return
        whole = run.with_name(f".{run.name}.taken")
        shutil.rmtree(whole, ignore_errors=True)
        (whole / "checkpoints").mkdir(parents=True)
        shutil.copy(trained / "config.yaml", whole)
        for file in trained.glob("checkpoints/*.ckpt"):
            if file.is_file():
                target = whole / "checkpoints" / file.name
                try:
                    target.hardlink_to(file)  # they are written anew under another name, never changed
                except OSError:  # not on every file system
                    shutil.copy2(file, target)
        whole.rename(run)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is absent or half-written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
