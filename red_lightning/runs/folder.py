"""The folder of a run: a readable, unique name. Finished runs are not overwritten unless asked."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from red_lightning.errors import UsageError

CHOSEN = "RED_LIGHTNING_RUN"
"""Environment variable by which the first process tells those that it starts which folder it chose."""


@dataclass
class Run:
    """Where a run writes, and what it shows at the end.

    Attributes:
        folder: Folder of all runs.
        name: Name of this run's folder inside it; null makes one of the config's name and the time (under SLURM, the
            job's number, and those of the task of an array and of the step).
        overwrite: Delete what is in the run's folder already.
        baseline: Test the backbone before training too, so that the final table shows unedited beside edited.
        test: Test the best checkpoint at the end. Without it the test split is never touched (nor by the baseline), and
            results.json holds the best validation score alone: for choosing settings.
        samples: Number of test rows that the final table shows.
        beside: Scores that the final table shows beside the run's own, such as published ones: a title, then a number
            for each metric.
        beside_data: Data module that the scores of ``beside`` are for, such as E2E. With another one they are left out
            and reported; null shows them with any.
    """

    folder: str = "runs"
    name: str | None = None
    overwrite: bool = False
    baseline: bool = False
    test: bool = True
    samples: int = 3
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    beside_data: str | None = None


def is_first_process() -> bool:
    """Whether this is the process that writes."""
    return not getattr(rank_zero_only, "rank", 0)


def choose(run: Run, experiment: str, resume: Literal["last", "auto"] | None) -> Path:
    """Choose and create the folder of a run.

    Args:
        run: The user's settings.
        experiment: What the run is called if it has no name of its own.
        resume: Whether an unfinished run is to be continued: the named or else the newest one. Under SLURM ``auto``
            continues none but the job's own, because the others may still be running.

    Raises:
        UsageError: The folder holds a run already, or it cannot be written.
    """
    if CHOSEN in os.environ:
        return Path(os.environ[CHOSEN])
    if run.name is not None and (run.name in (".", "..") or Path(run.name).name != run.name):
        raise UsageError(f"run.name is '{run.name}', but must be the name of one folder; its place is --run.folder")
    root = Path(run.folder).expanduser().absolute()
    newest = resume == "last" or (resume == "auto" and "SLURM_JOB_ID" not in os.environ)
    name = run.name or (_newest_unfinished(root, experiment) if newest else None) or _job_name(experiment)
    try:
        path = _create(root, name, run, experiment, resume is not None)
    except OSError as error:
        reason = f"the run folder '{root}' cannot be written: {error.strerror}"
        raise UsageError(f"{reason}; choose another with --run.folder") from error
    os.environ[CHOSEN] = str(path)
    return path


def discard() -> None:
    """Remove the folder of a run that was refused before it had anything to keep; what it replaced comes back."""
    path = Path(os.environ.get(CHOSEN, ""))
    if CHOSEN in os.environ and is_first_process() and path.is_dir() and not _has_something_to_keep(path):
        shutil.rmtree(path, ignore_errors=True)
        if _replaced(path).is_dir():
            _replaced(path).rename(path)
    settle()


def settle() -> None:
    """End a run: delete what it replaced, and let the next run of this process choose a folder of its own."""
    path = os.environ.pop(CHOSEN, None)
    if path is not None and is_first_process():
        shutil.rmtree(_replaced(Path(path)), ignore_errors=True)


def _replaced(path: Path) -> Path:
    """Where the earlier run of the same name waits until the new one has something to keep."""
    return path.with_name(f".{path.name}.replaced")


def _has_something_to_keep(path: Path) -> bool:
    """Return whether a run has written a checkpoint, results or predictions."""
    kept = [*path.rglob("*.ckpt"), *path.rglob("results.json"), *path.rglob("*predictions.jsonl")]
    return any(not file.name.startswith("baseline") for file in kept)


def _create(root: Path, name: str | None, run: Run, experiment: str, resume: bool) -> Path:
    if name is None:
        return _create_timed(root, experiment)
    path = root / name
    if is_first_process():
        _make_way(path, run, resume)
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    return path


def _make_way(path: Path, run: Run, resume: bool) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / "config.yaml").exists():
        raise UsageError(f"'{path}' holds something that is not a run; choose another --run.name")
    if run.overwrite and not resume:
        if path.is_dir() and _replaced(path).is_dir() and not _has_something_to_keep(path):
            shutil.rmtree(path)  # of a run that was killed at its start; what it replaced still waits
        elif path.is_dir():
            shutil.rmtree(_replaced(path), ignore_errors=True)
            path.rename(_replaced(path))
    elif (path / "results.json").exists():
        way = "" if resume else ", or give --run.overwrite true"
        raise UsageError(f"'{path}' holds a finished run; choose another --run.name{way}")
    elif (path / "checkpoints" / "last.ckpt").exists() and not resume:
        raise UsageError(
            f"'{path}' holds an unfinished run; continue it with --ckpt_path last, choose another --run.name, "
            "or give --run.overwrite true"
        )


def _create_timed(root: Path, experiment: str) -> Path:
    stem = f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1, 1000):
        path = root / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:  # another run started in the same second
            continue
    raise UsageError(f"'{root}' holds a thousand runs called '{stem}'; give --run.name")


def _job_name(experiment: str) -> str | None:
    if job := os.environ.get("SLURM_JOB_ID"):  # the name is the same after a requeue
        if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        step = os.environ.get("SLURM_STEP_ID", "0")  # several `srun` in one job: a run each
        return f"{experiment}-slurm{job}" + (f"_step{step}" if step != "0" else "")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("several processes were started from outside: give --run.name, so that they share a folder")
    return None


def _newest_unfinished(root: Path, experiment: str) -> str | None:
    found = [path for path in _checkpoints(root, experiment, "last") if not (path.parents[1] / "results.json").exists()]
    return found[-1].parents[1].name if found else None


def newest_best(root: Path, experiment: str, differs: Callable[[Path], str | None]) -> Path | None:
    """Return the best checkpoint of the newest run of an experiment that fits, among those without names of their own.

    Args:
        root: The folder of runs.
        experiment: The experiment.
        differs: Returns in what a run, given its folder, differs from what is wanted; None if it fits.

    Raises:
        UsageError: There are runs of the experiment, but none fits.
    """
    found = _checkpoints(root.expanduser().absolute(), experiment, "best")[::-1]
    reasons = {path: differs(path.parents[1]) for path in found}
    fitting = next((path for path in found if reasons[path] is None), None)
    if found and fitting is None:
        raise UsageError(
            f"--ckpt_path best finds no run of {experiment} with these data: {found[0].parents[1].name} has "
            f"{reasons[found[0]]}; give the path of a checkpoint"
        )
    return fitting


def _checkpoints(root: Path, experiment: str, name: str) -> list[Path]:
    """A checkpoint of every run that was named after the experiment and the time or the job, the newest last."""
    ours = re.compile(re.escape(experiment) + r"-(\d{8}-\d{6}(-\d+)?|slurm\w+)")
    found = [path for path in root.glob(f"*/checkpoints/{name}.ckpt") if ours.fullmatch(path.parents[1].name)]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)
