"""The folder of a study: what became of its cells, locks, and the processes that run them."""

import errno
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from filelock import FileLock, Timeout, lock_descriptor

from red_lightning.errors import UsageError
from red_lightning.studies import launchers
from red_lightning.studies.cell_runs import State, StudyFolder
from red_lightning.studies.cells import Cell
from red_lightning.studies.launchers import note_lost_jobs, run_here, submit
from red_lightning.studies.locks import HeldError, lock, owner_of, sign
from tests.studies.study_files import cells_of, finish, study_of


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return cells_of(study_of(tmp_path))["RED-mrpc-42"]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "studies/mine")
    folder.claim(study_of(tmp_path))
    return folder


def test_what_becomes_of_a_cell(cell: Cell, folder: StudyFolder) -> None:
    assert folder.state(cell).kind == "waiting"
    assert folder.command(cell)[-1] == "--ckpt_path=auto"
    folder.note(cell, status="failed", reason="no rows")
    assert folder.state(cell) == State("failed", "no rows")
    assert folder.command(cell)[-1] == "--ckpt_path=auto"  # what is there goes on
    finish(folder, cell, scores={"accuracy": 0.5})
    found = folder.state(cell)
    assert (found.kind, found.seconds) == ("done", 60)
    assert found.result is not None
    assert found.result["scores"] == {"accuracy": 0.5}
    changed = replace(cell, experiment={**cell.experiment, "seed_everything": 5})
    assert folder.state(changed).kind == "stale"
    assert folder.command(changed)[-1] == "--run.overwrite=true"


def test_a_run_on_a_file_that_has_changed_is_stale(cell: Cell, folder: StudyFolder, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na,b\n")
    cell = replace(cell, experiment={**cell.experiment, "data": {"init_args": {"train_file": str(file)}}})
    folder.note(cell, status="running", started=0)
    finish(folder, cell)
    assert folder.state(cell).kind == "done"
    file.write_text("text,label\na,c\n")
    assert folder.state(cell) == State("stale", f"'{file}' has changed since it ran")


@pytest.mark.parametrize("text", ["", '{"scores": {', "[]", '{"scores": {}}'])
def test_a_half_written_result_is_no_result(text: str, cell: Cell, folder: StudyFolder) -> None:
    finish(folder, cell)
    (folder.runs / cell.name / "results.json").write_text(text)
    state = folder.state(cell)
    assert state.kind == "failed"
    assert "missing or half-written" in state.reason
    assert folder.command(cell)[-1] == "--run.overwrite=true"


def test_a_run_whose_parent_was_killed_counts_if_it_finished(cell: Cell, folder: StudyFolder) -> None:
    finish(folder, cell)
    folder.note(cell, status="running", started=time.time() - 60)
    assert folder.state(cell).kind == "done"
    folder.note(cell, status="running", started=time.time() + 60)  # that is the result of an earlier attempt
    assert folder.state(cell).kind == "waiting"


def test_the_folder_of_another_study_is_refused(tmp_path: Path, folder: StudyFolder) -> None:
    folder.claim(study_of(tmp_path))
    with pytest.raises(UsageError, match=r"is the folder of another study, '.*mine\.yaml'; choose another --folder"):
        folder.claim(study_of(tmp_path, "other"))
    other_axes = study_of(tmp_path, report={"rows": "x"}, axes={"x": {"1": {}}, "seed": {"1": {}}})
    with pytest.raises(UsageError, match="with the axes method, task, seed, but now it has x, seed; choose another"):
        folder.claim(other_axes)
    study_of(tmp_path)
    twin = tmp_path / "twin"
    twin.mkdir()
    with pytest.raises(UsageError, match="of another study"):
        folder.claim(study_of(twin))
    (tmp_path / "x/something").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds something that is no study"):
        StudyFolder(tmp_path / "x").claim(study_of(tmp_path))


def test_a_moved_study_keeps_its_folder(tmp_path: Path, folder: StudyFolder) -> None:
    (tmp_path / "mine.yaml").unlink()
    twin = tmp_path / "elsewhere"
    twin.mkdir()
    folder.claim(study_of(twin))


def test_a_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert owner_of(path) is None
    assert not path.exists()
    with lock(path) as held:
        sign(held, 7)
        assert owner_of(path) == f"process 7 on {socket.gethostname()}"
        sign(held, os.getpid())
        with pytest.raises(HeldError, match=f"process {os.getpid()} on {socket.gethostname()}"), lock(path):
            pass
        with ThreadPoolExecutor(1) as other, pytest.raises(HeldError):
            other.submit(lock(path).__enter__).result()
        with pytest.raises(Timeout):  # scripts may hold a cell as well
            FileLock(path, blocking=False).acquire()
    assert owner_of(path) is None
    with FileLock(path), pytest.raises(HeldError), lock(path):
        pass


def test_a_run_holds_the_lock_after_its_study_was_killed(cell: Cell, folder: StudyFolder, tmp_path: Path) -> None:
    """As after `kill -9` of `study run`: the descriptor closes, and no handler runs."""
    path, (ready, go) = folder.cells / f"{cell.name}.lock", (tmp_path / "ready", tmp_path / "go")
    for pipe in (ready, go):
        os.mkfifo(pipe)
    run = f"import os; open({str(ready)!r}, 'w').write(str(os.getpid())); open({str(go)!r}).read()"
    study = f"""
import sys
from pathlib import Path
from red_lightning.studies.locks import lock
from red_lightning.studies.cell_process import run_process
with lock(Path({str(path)!r})) as held:
    run_process([sys.executable, "-S", "-c", {run!r}], Path({str(tmp_path / "log")!r}), {{}}, held, None)
"""
    process = subprocess.Popen([sys.executable, "-c", study])
    child = ready.read_text()
    process.kill()
    process.wait()
    state = run_as(cell, folder, "raise SystemExit(1)")
    assert state.kind == "running"
    assert state.reason in {f"process {pid} on {socket.gethostname()}" for pid in (child, process.pid)}
    go.write_text("")  # the run ends
    with path.open("r+b") as file:
        lock_descriptor(file.fileno())  # waits for that
    assert state.reason == path.read_text()  # nobody has removed the name, and it does not count
    assert folder.state(cell).kind == "waiting"
    assert run_as(cell, folder, "raise SystemExit(3)").reason == "ended with status 3"


def test_a_file_system_without_locks_is_refused(tmp_path: Path) -> None:
    missing = patch("fcntl.flock", side_effect=OSError(errno.ENOSYS, "Function not implemented"))
    said = "x.lock' cannot be locked: Function not implemented"
    with missing, pytest.raises(UsageError, match=said), lock(tmp_path / "x.lock"):
        pass


def test_who_may_not_write_a_lock_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with lock(path), patch("os.access", return_value=False):
        assert str(os.getpid()) in str(owner_of(path))
    with patch("os.access", return_value=False):
        assert owner_of(path) is None


def script(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


def run_as(cell: Cell, folder: StudyFolder, text: str, stop: threading.Event | None = None) -> State:
    """Execute a cell whose command is another program."""
    with patch.object(StudyFolder, "command", lambda *_: script(text)):
        return folder.execute(cell, {"MINE": "3"}, stop)


def test_a_failed_run_says_why(cell: Cell, folder: StudyFolder) -> None:
    said = "import sys; print('training'); sys.stderr.write('warning\\nerror: data.task is odd\\n'); sys.exit(2)"
    assert run_as(cell, folder, said) == State("failed", "data.task is odd")
    assert run_as(cell, folder, "raise ValueError('deep inside')") == State("failed", "ValueError: deep inside")
    assert run_as(cell, folder, "import os; os.kill(os.getpid(), 9)").reason == "killed by signal 9 (out of memory?)"
    assert run_as(cell, folder, "import sys; sys.exit(3)").reason == "ended with status 3"
    bar = "print('Epoch 0:  50%|##   | 3/6 [00:01<00:01, 2.5it/s]'); "
    assert run_as(cell, folder, f"print('no room'); {bar}raise SystemExit(1)").reason == "no room"
    assert run_as(cell, folder, bar[:-4] + "error: odd'); raise SystemExit(2)").reason == "odd"
    stopped = run_as(cell, folder, "print('stopped by SIGUSR1; so'); print('job 3'); raise SystemExit(138)")
    assert stopped.reason == "stopped by SIGUSR1; so"
    assert "missing or half-written" in run_as(cell, folder, "").reason
    assert (folder.cells / f"{cell.name}.log").exists()


@pytest.mark.parametrize(
    ("text", "killed"),
    [
        ("print('error: data.task is odd'); raise SystemExit(2)", False),
        ("raise ValueError('diverged')", False),
        ("print('error: x cannot be written: No space left on device'); raise SystemExit(2)", True),
        ("raise RuntimeError('CUDA out of memory')", True),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("import os; os._exit(137)", True),
    ],
    ids=str,
)
def test_a_killed_run_says_nothing_of_its_settings(text: str, killed: bool, cell: Cell, folder: StudyFolder) -> None:
    state = run_as(cell, folder, text)
    assert (state.kind, state.killed) == ("failed", killed)


def test_a_run_sees_its_own_environment(cell: Cell, folder: StudyFolder) -> None:
    said = (
        "import os, sys; sys.exit(f\"{os.environ.get('SLURM_JOB_ID')} {os.environ['MINE']} {os.environ.get('RANK')}\")"
    )
    with patch.dict(os.environ, {"SLURM_JOB_ID": "1", "RANK": "2"}):
        assert run_as(cell, folder, said).reason == "None 3 None"


def test_done_and_running_cells_are_left_alone(cell: Cell, folder: StudyFolder) -> None:
    finish(folder, cell)
    assert run_as(cell, folder, "raise SystemExit(1)").kind == "done"
    with lock(folder.cells / f"{cell.name}.lock"):
        assert folder.state(cell).kind == "running"
        assert run_as(cell, folder, "raise SystemExit(1)").kind == "running"


def test_an_interrupted_run_waits(cell: Cell, folder: StudyFolder) -> None:
    stop = threading.Event()
    stop.set()
    assert run_as(cell, folder, "import time; time.sleep(20)", stop) == State("waiting", "interrupted")
    for end in ("raise SystemExit(1)", "raise SystemExit(0)"):  # as an interpreter that just begins
        assert run_as(cell, folder, end, stop).kind == "waiting"
    for end in ("import os; os.kill(os.getpid(), 15)", "raise SystemExit(143)"):  # as the callback ends a run
        assert run_as(cell, folder, end) == State("waiting", "interrupted")


def test_a_stale_run_is_kept_until_the_new_one_has_ended(cell: Cell, folder: StudyFolder) -> None:
    finish(folder, cell, scores={"accuracy": 0.5})
    run, earlier = folder.runs / cell.name, folder.earlier / cell.name
    changed = replace(cell, experiment={**cell.experiment, "seed_everything": 5})
    begun: list[str] = []

    def execute(text: str) -> State:
        command = StudyFolder.command
        with patch.object(StudyFolder, "command", lambda *a: begun.append(command(*a)[-1]) or script(text)):
            return folder.execute(changed, {})

    assert execute("raise SystemExit(143)").kind == "waiting"  # before it has a folder
    assert execute(f"import os; os.mkdir({str(run)!r}); raise SystemExit(143)").kind == "waiting"
    assert json.loads((earlier / "results.json").read_text())["scores"] == {"accuracy": 0.5}
    again = replace(cell, experiment={**cell.experiment, "seed_everything": 6})
    with patch.object(StudyFolder, "command", lambda *_: script("raise SystemExit(143)")):
        folder.execute(again, {})  # what was broken off is worth less than what had ended
    assert (earlier / "results.json").exists()
    assert not run.exists()
    assert folder.state(changed).kind == "stale"
    result = json.dumps({"scores": {}, "selection": {}})
    made = f"import os; os.mkdir({str(run)!r}); open({str(run / 'results.json')!r}, 'w').write({result!r})"
    assert execute(made).kind == "done"
    assert not earlier.exists()
    assert begun == ["--ckpt_path=auto"] * 3


def test_what_was_trained_to_choose_is_taken_over(cell: Cell, folder: StudyFolder) -> None:
    tried = replace(cell, name="RED-mrpc-42-x=1", tried=1)
    finish(folder, tried)
    kept = folder.runs / tried.name / "checkpoints/last.ckpt"
    kept.parent.mkdir()
    kept.write_text("weights")
    (folder.runs / tried.name / "config.yaml").write_text("model: 1")
    run = folder.runs / cell.name
    run_as(replace(cell, trained=tried.name), folder, "raise SystemExit(1)")
    assert (run / "checkpoints/last.ckpt").read_text() == "weights"
    assert not (run / "results.json").exists()
    assert folder.command(cell)[-1] == "--ckpt_path=auto"
    (run / "config.yaml").write_text("mine")
    run_as(replace(cell, trained=tried.name), folder, "raise SystemExit(1)")  # once is enough
    assert (run / "config.yaml").read_text() == "mine"
    assert (folder.runs / tried.name / "config.yaml").read_text() == "model: 1"


def test_several_run_at_once_each_on_a_device(tmp_path: Path, folder: StudyFolder) -> None:
    cells = [cell for name, cell in cells_of(study_of(tmp_path)).items() if "mrpc" in name]
    seen: dict[str, str] = {}
    said = script("import os, sys; sys.exit(os.environ['CUDA_VISIBLE_DEVICES'] + os.environ['OMP_NUM_THREADS'])")
    with patch.object(StudyFolder, "command", lambda *_: said), patch.dict(os.environ, {"OMP_NUM_THREADS": "5"}):
        run_here(cells, folder, 3, ["GPU-a", "GPU-b"], lambda cell, state: seen.update({cell.name: state.reason}))
    assert set(seen) == {cell.name for cell in cells}
    assert set(seen.values()) <= {"GPU-a5", "GPU-b5"}


def test_a_job_array_runs_the_cells(tmp_path: Path, folder: StudyFolder) -> None:
    """submitit's own stand-in for SLURM runs the job in a process here."""
    pytest.importorskip("submitit")
    cell = cells_of(study_of(tmp_path))["RED-mrpc-42"]
    with patch.object(StudyFolder, "command", lambda *_: script("raise SystemExit('ran')")):
        jobs = submit([cell], folder, None, {"gpus_per_node": 0}, cluster="debug")
        assert len(jobs) == 1
        assert folder.state(cell) == State("queued", "waits in SLURM")
        assert json.loads((folder.path / "slurm_jobs.json").read_text()) == {cell.name: jobs[0]}
    begun = folder.runs / cell.name
    (begun / "checkpoints").mkdir(parents=True)
    changed = replace(cell, experiment={**cell.experiment, "seed_everything": 5})
    with patch.object(StudyFolder, "command", lambda *_: script("raise SystemExit('ran')")):
        submit([changed], folder, None, {"gpus_per_node": 0}, cluster="debug")
    assert not begun.exists()  # other settings cannot go on with it
    assert (folder.earlier / cell.name / "checkpoints").is_dir()
    with pytest.raises(UsageError, match="SLURM did not take the jobs"):
        submit([cell], folder, None, {"slurm_partitoin": "x"}, cluster="debug")
    assert folder.state(cell) == State("failed", "SLURM did not take it", killed=True)


def test_a_job_runs_its_cell_where_it_was_submitted(
    cell: Cell, folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    sent = pickle.loads(pickle.dumps((launchers._run_there, folder.path, cell, tmp_path / "data")))
    assert sent[2] == cell
    with patch.object(StudyFolder, "command", lambda *_: script("import os, sys; sys.exit(os.getcwd())")):
        assert sent[0](*sent[1:]) == f"{cell.name}: failed {tmp_path / 'data'}"


def test_a_cancelled_job_is_noticed(tmp_path: Path, folder: StudyFolder) -> None:
    submitit = pytest.importorskip("submitit")
    lost, pending, *_ = cells_of(study_of(tmp_path)).values()
    (folder.path / "slurm_jobs.json").write_text(json.dumps({lost.name: "7_0", pending.name: "7_1"}))
    for cell in (lost, pending):
        folder.note(cell, status="queued")
    states = {"7_0": "CANCELLED by 0", "7_1": "PENDING"}
    with patch.object(submitit.SlurmJob, "state", property(lambda job: states[job.job_id])):
        note_lost_jobs([lost, pending], folder)
    assert folder.state(lost) == State("failed", "SLURM job 7_0 ended as CANCELLED", killed=True)
    assert folder.state(pending).kind == "queued"
