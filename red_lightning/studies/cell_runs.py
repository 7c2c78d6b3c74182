"""The folder of a study: the state of each cell, and how to run one.

``study.json`` names the study. ``runs/CELL`` is the run folder of a cell. ``cells/`` has a record, a log and a lock
file of each cell that ran. ``earlier/CELL`` keeps a finished run until the run that replaces it has finished, too.
"""

import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError
from red_lightning.studies.cell_process import INTERRUPTED, run_process, why
from red_lightning.studies.cells import Cell
from red_lightning.studies.data_files import data_files
from red_lightning.studies.locks import HeldError, lock, owner_of
from red_lightning.studies.study_file import Study

Kind = Literal["done", "running", "queued", "failed", "stale", "waiting"]


@dataclass(frozen=True)
class State:
    """The state of a cell.

    Attributes:
        kind: ``stale``: it ran with other settings. ``queued``: it waits in SLURM.
        reason: Why it failed, what it waits for, or which process runs it.
        seconds: The duration of the run, if done.
        result: The contents of ``results.json``, if done.
        killed: Whether something other than its settings made it fail (a signal, no memory, a full disk): the failure
            says nothing about the settings.
    """

    kind: Kind
    reason: str = ""
    seconds: float | None = None
    result: dict[str, Any] | None = None
    killed: bool = False


class StudyFolder:
    """The folder that a study writes to."""

    def __init__(self, path: Path) -> None:
        self.path, self.runs, self.cells, self.earlier = path, path / "runs", path / "cells", path / "earlier"

    def claim(self, study: Study) -> None:
        """Create the folder, or check that it is this study's.

        Raises:
            UsageError: The folder belongs to another study, or cannot be written.
        """
        self.require(study)
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            identity = {"file": str(study.path.resolve()), "name": study.name, "axes": list(study.axes)}
            write_whole(self.path / "study.json", json.dumps(identity, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"the study's folder '{self.path}' cannot be written: {error.strerror}") from error

    def require(self, study: Study) -> None:
        """Refuse the folder of another study."""
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
        """Return the record of a cell; empty if it never ran."""
        return _read(self.cells / f"{cell.name}.json") or {}

    def note(self, cell: Cell, **what: Any) -> None:
        """Update the record of a cell."""
        begins = {"files": data_files(cell.experiment)} if what.get("status") in ("running", "queued") else {}
        content = {**self.record(cell), "digest": cell.digest, **begins, **what}
        write_whole(self.cells / f"{cell.name}.json", json.dumps(content, indent=2) + "\n")

    def state(self, cell: Cell) -> State:
        """Return the state of a cell."""
        owner = owner_of(self.cells / f"{cell.name}.lock")
        return State("running", owner) if owner else self._left(cell)

    def _left(self, cell: Cell) -> State:
        """Return the state of a cell that no process runs."""
        record, results = self.record(cell), self._result(cell)
        if not record:
            return State("waiting")
        if record["digest"] != cell.digest:
            return State("stale", "its settings have changed since it ran")
        now = data_files(cell.experiment)
        if changed := [name for name, digest in record.get("files", {}).items() if now.get(name) != digest]:
            return State("stale", f"'{changed[0]}' has changed since it ran")
        if record["status"] == "queued":
            return State("queued", "waits in SLURM")
        if record["status"] == "interrupted":
            return State("waiting", record.get("reason", ""))
        if record["status"] == "failed":
            return State("failed", record.get("reason", ""), killed=record.get("killed", False))
        if record["status"] == "running" and not (results.exists() and results.stat().st_mtime >= record["started"]):
            return State("waiting", "its process ended before the run did")
        result = _read(results)
        if result is None or not {"scores", "selection"} <= {*result}:
            return State("failed", f"'{results}' is missing or half-written", killed=True)
        return State("done", seconds=record.get("seconds"), result=result)

    def command(self, cell: Cell) -> list[str]:
        """Return the command line that starts the run of a cell, or resumes it."""
        place = [f"--run.folder={self.runs}", f"--run.name={cell.name}"]
        test = ["--run.test=false"] if cell.tried is not None else []
        begin = "--run.overwrite=true" if self._is_replaced(cell) else "--ckpt_path=auto"
        return [sys.executable, "-m", "red_lightning", "fit", *cell.options(), *place, *test, begin]

    def _is_replaced(self, cell: Cell) -> bool:
        """Return whether the run in a cell's folder cannot be resumed: it has other settings, or is finished."""
        return self.record(cell).get("digest", cell.digest) != cell.digest or self._result(cell).exists()

    def execute(self, cell: Cell, env: Mapping[str, str], stop: threading.Event | None = None) -> State:
        """Run a cell in a child process, unless it is done or another process runs it.

        Args:
            cell: The cell.
            env: Environment variables to add to those of this process.
            stop: Interrupts the run when set.
        """
        try:
            with lock(self.cells / f"{cell.name}.lock") as held:
                if self._left(cell).kind != "done":
                    self._run(cell, held, env, stop)
                return self._left(cell)
        except HeldError as owner:
            return State("running", str(owner))

    def _run(self, cell: Cell, held: BinaryIO, env: Mapping[str, str], stop: threading.Event | None) -> None:
        """Run a cell whose lock is held, and record how it ended."""
        started, log = time.time(), self.cells / f"{cell.name}.log"
        self.set_aside(cell)
        self.note(cell, status="running", started=started, reason="")  # from here on, the run can be resumed
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
        """Move a run that cannot be resumed to ``earlier/``, before the record gets the new settings and hides that.

        A finished run in ``earlier/`` is not replaced by an unfinished one, which is removed.
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
        """Copy the checkpoints of the run that trained with a cell's settings, so that the cell's run only tests."""
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
                    target.hardlink_to(file)  # safe: checkpoints are replaced, never changed in place
                except OSError:  # not on every file system
                    shutil.copy2(file, target)
        whole.rename(run)


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None if the file is absent or half-written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
