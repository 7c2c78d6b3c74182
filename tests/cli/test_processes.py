"""Two processes measure what one process measures, and write one run."""

import json
from pathlib import Path

import pytest

from tests.backbones_zoo import save_backbone
from tests.cli.commands import results, rows, run_apart, write_classifier, write_experiment
from tests.cli.conftest import CLI
from tests.cli.test_kill import bytes_of, kill_when, writes
from tests.training import write_pairs

pytestmark = pytest.mark.slow

CONFIG = ("--config", "small.yaml", "--checkpoint.every_n_steps", "1")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.fixture
def folder(tmp_path: Path, gpt2_folder: Path) -> Path:
    """An experiment whose splits do not divide by two: 11 training rows, 5 rows to validate and to test."""
    write_experiment(tmp_path, gpt2_folder)
    write_pairs(tmp_path / "validation.jsonl", 5)
    return tmp_path


def in_two(folder: Path, command: str, *args: str) -> str:
    """Run a command in two processes."""
    done = run_apart(folder, command, *CONFIG, *TWO, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_two_processes_measure_what_one_measures(cli: CLI, folder: Path) -> None:
    assert cli("fit", *CONFIG, "--run.name", "one").status == 0
    one = folder / "runs/one"
    best = ("--ckpt_path", str(one / "checkpoints/best.ckpt"))
    in_two(folder, "test", *best, "--run.name", "t")
    assert results(folder / "runs/t")["scores"] == results(one)["scores"]
    assert rows(folder / "runs/t/test_predictions.jsonl") == rows(one / "test_predictions.jsonl")
    in_two(folder, "validate", *best, "--run.name", "v")
    val_loss = results(folder / "runs/v")["scores"]["val_loss"]
    assert val_loss == pytest.approx(results(one)["selection"]["score"], rel=1e-6)
    in_two(folder, "predict", *best, "--run.name", "p")
    assert rows(folder / "runs/p/predictions.jsonl") == rows(one / "test_predictions.jsonl")


def test_two_processes_train_and_write_one_run(cli: CLI, folder: Path) -> None:
    shown = in_two(folder, "fit", "--run.baseline", "true")
    (run,) = (folder / "runs").iterdir()
    for once in ("run folder:", "testing the unedited", "training 128 of", "Scores on the test split", "results:"):
        assert shown.count(once) == 1, shown
    assert sorted(path.name for path in run.iterdir()) == [
        "baseline.json",
        "baseline_predictions.jsonl",
        "checkpoints",
        "config.yaml",
        "edits",
        "results.json",
        "test_predictions.jsonl",
    ]
    written = results(run)
    assert written["train"]["steps"] == 2 * 6  # of 11 rows the last step has one; the other process gets a filler
    assert written["data"]["rows"] == {"train": 11, "validation": 5, "test": 5}
    assert [row["row"] for row in rows(run / "test_predictions.jsonl")] == [0, 1, 2, 3, 4]
    best = ("--config", "small.yaml", "--ckpt_path", str(run / "checkpoints/best.ckpt"))
    assert cli("test", *best, "--run.name", "t").status == 0  # in one process
    assert results(folder / "runs/t")["scores"] == written["scores"]
    assert cli("validate", *best, "--run.name", "v").status == 0
    val_loss = results(folder / "runs/v")["scores"]["val_loss"]
    assert val_loss == pytest.approx(written["selection"]["score"], rel=1e-6)
    assert json.loads((run / "edits/edits.json").read_text())["scores"] == written["scores"]


def test_two_processes_resume(folder: Path) -> None:
    epochs = ("--trainer.max_epochs", "3")
    in_two(folder, "fit", *epochs, "--run.name", "whole")
    run = folder / "runs/killed"
    kill_when(writes(6), run, folder, "fit", *CONFIG, *TWO, *epochs, "--run.name", "killed")
    assert (run / "checkpoints/last.ckpt").exists()
    assert not (run / "results.json").exists()
    in_two(folder, "fit", *epochs, "--run.name", "killed", "--ckpt_path", "last")
    assert results(run) == results(folder / "runs/whole")
    assert bytes_of(run) == bytes_of(folder / "runs/whole")


def test_two_processes_classify_as_one_does(tmp_path: Path) -> None:
    write_classifier(tmp_path, save_backbone("roberta", tmp_path / "roberta"))
    options = ("--config", "texts.yaml", "--trainer.max_epochs", "4")
    for name, more in (("one", ()), ("two", TWO)):
        done = run_apart(tmp_path, "fit", *options, *more, "--run.name", name, "--model.head.dropout", "0")
        assert done.returncode == 0, done.stdout + done.stderr
    best = ("--ckpt_path", "runs/two/checkpoints/best.ckpt", "--run.name", "again")
    assert run_apart(tmp_path, "test", *options, *best).returncode == 0
    two, again = (results(tmp_path / f"runs/{name}") for name in ("two", "again"))
    for key in ("scores", "per_class", "confusion"):
        assert again[key] == two[key]
    assert rows(tmp_path / "runs/again/test_predictions.jsonl") == rows(tmp_path / "runs/two/test_predictions.jsonl")
    assert [row["row"] for row in rows(tmp_path / "runs/two/test_predictions.jsonl")] == list(range(6))


def test_bad_input_in_two_processes_is_one_sentence(folder: Path) -> None:
    done = run_apart(folder, "fit", *CONFIG, *TWO, "--data.train_file", "none.jsonl")
    assert done.returncode != 0
    assert "error: the data file 'none.jsonl' does not exist" in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert list(folder.glob("runs/*")) == []
