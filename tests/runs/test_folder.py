"""Folders of runs: chosen once, never shared, never overwritten unasked."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import pytest

from red_lightning.errors import UsageError
from red_lightning.runs.folder import CHOSEN, Run, choose, discard, newest_best, settle
from tests.cli.commands import environment

OLD, NEW, NEWEST = (f"e2e-20240101-00000{second}" for second in (1, 2, 3))


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Environment variables end with the test."""
    with patch.dict(os.environ, environment(), clear=True):
        yield


def chosen(run: Run, experiment: str = "e2e", resume: Literal["last", "auto"] | None = None) -> Path:
    os.environ.pop(CHOSEN, None)
    return choose(run, experiment, resume)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def touch_run(run: Path, file: str) -> Path:
    """A run with one file besides its config."""
    touch(run / "config.yaml")
    return touch(run / file)


def test_unnamed_runs_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda pattern: "20240102-030405")
    names = [chosen(Run(folder=str(tmp_path))).name for _ in range(3)]
    assert names == ["e2e-20240102-030405", "e2e-20240102-030405-2", "e2e-20240102-030405-3"]


def test_started_processes_take_the_same_folder(tmp_path: Path) -> None:
    first = choose(Run(folder=str(tmp_path)), "e2e", resume=None)
    assert choose(Run(folder=str(tmp_path)), "e2e", resume=None) == first
    settle()
    assert choose(Run(folder=str(tmp_path)), "e2e", resume=None) != first


def test_slurm_job_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert chosen(Run(folder=str(tmp_path))).name == "e2e-slurm77"
    assert chosen(Run(folder=str(tmp_path), name="mine")).name == "mine"


def test_tasks_of_an_array_and_steps_of_a_job_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(folder=str(tmp_path))
    variables = {"SLURM_JOB_ID": "79", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "43", "SLURM_STEP_ID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert chosen(run).name == "e2e-slurm77_43"
    touch_run(tmp_path / "e2e-slurm77_43", "checkpoints/last.ckpt")
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert chosen(run).name == "e2e-slurm77_43_step1"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "44")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert chosen(run, resume="auto").name == "e2e-slurm77_44"  # not that of a task which may still run
    assert chosen(run, resume="last").name == "e2e-slurm77_43"


def test_processes_from_outside_need_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"--run\.name"):
        chosen(Run(folder=str(tmp_path)))
    assert chosen(Run(folder=str(tmp_path), name="mine")).name == "mine"


def test_finished_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    touch_run(tmp_path / "done", "results.json")
    touch_run(tmp_path / "half", "checkpoints/last.ckpt")
    with pytest.raises(UsageError, match="finished run"):
        chosen(Run(folder=str(tmp_path), name="done"))
    with pytest.raises(UsageError, match="finished run"):
        chosen(Run(folder=str(tmp_path), name="done"), resume="last")
    with pytest.raises(UsageError, match=r"unfinished run.*--ckpt_path last"):
        chosen(Run(folder=str(tmp_path), name="half"))
    assert chosen(Run(folder=str(tmp_path), name="half"), resume="last") == tmp_path / "half"


def test_a_run_that_left_nothing_may_be_repeated(tmp_path: Path) -> None:
    touch(tmp_path / "early/config.yaml")
    assert chosen(Run(folder=str(tmp_path), name="early")) == tmp_path / "early"


def test_overwriting_deletes_what_was_there_in_the_end_only(tmp_path: Path) -> None:
    old = touch_run(tmp_path / "done", "results.json")
    path = chosen(Run(folder=str(tmp_path), name="done", overwrite=True))
    assert list(path.iterdir()) == []
    discard()
    assert old.is_file()
    path = chosen(Run(folder=str(tmp_path), name="done", overwrite=True))
    touch_run(path, "checkpoints/last.ckpt")
    discard()  # it has something to keep
    assert not old.exists()
    assert (path / "checkpoints/last.ckpt").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["done"]
    chosen(Run(folder=str(tmp_path), name="done", overwrite=True))
    settle()
    assert [item.name for item in tmp_path.rglob("*")] == ["done"]


def test_a_finished_run_outlives_runs_that_are_killed_at_their_start(tmp_path: Path) -> None:
    old = touch_run(tmp_path / "done", "results.json")
    for _ in range(2):  # killed: neither discarded nor settled
        touch(chosen(Run(folder=str(tmp_path), name="done", overwrite=True)) / "config.yaml")
    chosen(Run(folder=str(tmp_path), name="done", overwrite=True))
    discard()  # refused
    assert old.is_file() and [item.name for item in tmp_path.iterdir()] == ["done"]


def test_overwriting_does_not_delete_what_is_to_be_continued(tmp_path: Path) -> None:
    last = touch_run(tmp_path / "half", "checkpoints/last.ckpt")
    chosen(Run(folder=str(tmp_path), name="half", overwrite=True), resume="last")
    assert last.is_file()


@pytest.mark.parametrize("left", ["config.yaml", "logs/csv/metrics.csv", "baseline.json", "baseline_predictions.jsonl"])
def test_refused_runs_leave_no_folder(left: str, tmp_path: Path) -> None:
    path = chosen(Run(folder=str(tmp_path)))
    touch(path / left)
    discard()
    assert not path.exists()
    assert CHOSEN not in os.environ


@pytest.mark.parametrize("left", ["checkpoints/last.ckpt", "results.json", "test_predictions.jsonl"])
def test_whatever_is_worth_keeping_stays(left: str, tmp_path: Path) -> None:
    path = chosen(Run(folder=str(tmp_path)))
    touch(path / left)
    discard()
    assert (path / left).is_file()


def test_discard_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "config.yaml")
    discard()
    assert (tmp_path / "config.yaml").is_file()


def test_continuing_without_a_name_takes_the_newest_unfinished_run(tmp_path: Path) -> None:
    for age, name in enumerate([OLD, NEW, NEWEST, f"other-{NEWEST}", "e2e-named"]):
        last = touch_run(tmp_path / name, "checkpoints/last.ckpt")
        os.utime(last, (1000 + age, 1000 + age))
    touch(tmp_path / NEWEST / "results.json")
    assert chosen(Run(folder=str(tmp_path)), resume="last").name == NEW


def test_newest_best(tmp_path: Path) -> None:
    assert newest_best(tmp_path, "e2e", lambda _: None) is None
    for age, name in enumerate([NEW, OLD, f"other-{NEWEST}", "e2e-named"]):
        best = touch_run(tmp_path / name, "checkpoints/best.ckpt")
        os.utime(best, (1000 - age, 1000 - age))
    assert newest_best(tmp_path, "e2e", lambda _: None) == tmp_path / NEW / "checkpoints/best.ckpt"
    other = "data.train_file b.csv, not a.csv"
    older = newest_best(tmp_path, "e2e", lambda run: other if run.name == NEW else None)
    assert older == tmp_path / OLD / "checkpoints/best.ckpt"
    with pytest.raises(UsageError, match=rf"no run of e2e with these data: {NEW} has data.train_file b.csv, not a.csv"):
        newest_best(tmp_path, "e2e", lambda _: other)


@pytest.mark.parametrize("name", [".", "..", "a/b", "/a"])
def test_a_name_is_one_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.name"):
        chosen(Run(folder=str(tmp_path), name=name, overwrite=True))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(overwrite: bool, tmp_path: Path) -> None:
    thesis = touch(tmp_path / "thesis/chapter1.tex")
    with pytest.raises(UsageError, match="not a run"):
        chosen(Run(folder=str(tmp_path), name="thesis", overwrite=overwrite))
    discard()
    assert thesis.is_file()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    touch(tmp_path / "file")
    for run in (Run(folder=str(tmp_path / "file")), Run(folder=str(tmp_path / "file"), name="x")):
        with pytest.raises(UsageError, match=r"cannot be written: .*--run.folder"):
            chosen(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UsageError, match="Permission denied"):
        chosen(Run(folder=str(tmp_path / "locked")))
