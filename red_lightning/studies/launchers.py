"""Run the cells of a study on this machine, or as a SLURM job array."""

import json
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError
from red_lightning.studies.cell_runs import State, StudyFolder
from red_lightning.studies.cells import Cell

JOBS = "slurm_jobs.json"
"""The file with the number of each cell's last job."""

Told = Callable[[Cell, State], None]


def run_here(cells: Sequence[Cell], folder: StudyFolder, jobs: int, devices: Sequence[str], told: Told) -> None:
    """Run cells on this machine, several at a time.

    Args:
        cells: Those to run.
        folder: The study's folder.
        jobs: How many run at once.
        devices: The GPUs, as ``CUDA_VISIBLE_DEVICES`` names them: each run sees one of them alone.
        told: Called with each cell that has ended.
    """
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(devices[job % len(devices)] if devices else None)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    stop = threading.Event()

    def run(cell: Cell) -> State:
        device = free.get()
        try:
            env = {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": device} if device is not None else {})
            return folder.execute(cell, env, stop)
        finally:
            free.put(device)

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        try:
            for future in as_completed(futures):
                told(futures[future], future.result())
        except BaseException:
            stop.set()  # each run is interrupted, and can go on later
            pool.shutdown(cancel_futures=True)
            raise


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def submit(
    cells: Sequence[Cell], folder: StudyFolder, jobs: int | None, options: Mapping[str, Any], cluster: str = "slurm"
) -> list[str]:
    """Hand cells to SLURM as one job array.

    Args:
        cells: Those to run.
        folder: The study's folder, which all nodes see.
        jobs: How many run at once; None leaves that to SLURM.
        options: Those of submitit's ``AutoExecutor.update_parameters``, such as ``slurm_partition``, ``timeout_min``.
        cluster: What submitit calls the scheduler.

    Returns:
        The jobs' numbers.

    Raises:
        UsageError: submitit is missing, an option is unknown, or SLURM refuses the jobs.
    """
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder.path / "slurm", cluster=cluster)
        given = {"name": folder.path.name, "gpus_per_node": 1, **({"slurm_array_parallelism": jobs} if jobs else {})}
        executor.update_parameters(**{**given, **options})
        for cell in cells:  # a job may begin before its number is known here
            folder.set_aside(cell)
            folder.note(cell, status="queued")
        tasks = executor.map_array(_run_there, [folder.path.resolve()] * len(cells), cells, [Path.cwd()] * len(cells))
    except (RuntimeError, NameError, TypeError, ValueError, OSError, submitit.core.utils.FailedJobError) as error:
        for cell in cells:
            folder.note(cell, status="failed", reason="SLURM did not take it", killed=True)
        raise UsageError(f"SLURM did not take the jobs: {' '.join(str(error).split())}") from error
    numbers = {cell.name: task.job_id for cell, task in zip(cells, tasks, strict=True)}
    write_whole(folder.path / JOBS, json.dumps({**_jobs(folder), **numbers}, indent=2) + "\n")
    return list(numbers.values())


def note_lost_jobs(cells: Sequence[Cell], folder: StudyFolder) -> None:
    """Note which queued cells SLURM will not run any more (a job was cancelled, or its node failed)."""
    jobs = _jobs(folder)
    queued = [cell for cell in cells if cell.name in jobs and folder.state(cell).kind == "queued"]
    if not queued:
        return
    submitit = _submitit()
    for cell in queued:
        job = submitit.SlurmJob(folder.path / "slurm", jobs[cell.name])
        if (state := job.state.split()[0]) not in ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "UNKNOWN"):
            folder.note(cell, status="failed", reason=f"SLURM job {jobs[cell.name]} ended as {state}", killed=True)


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UsageError("SLURM needs submitit: python -m pip install 'red-lightning[slurm]'") from error
    return submitit


def _jobs(folder: StudyFolder) -> dict[str, str]:
    path = folder.path / JOBS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _run_there(path: Path, cell: Cell, working: Path) -> str:
    """Run a cell in a job."""
    os.chdir(working)
    state = StudyFolder(path).execute(cell, {})
    return f"{cell.name}: {state.kind} {state.reason}"
