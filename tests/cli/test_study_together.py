"""``study run --together``: cells that one command computes, against the same cells alone."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import environment, results, run_apart, write_experiment
from tests.cli.conftest import CLI, Outcome
from tests.cli.test_replicas import done, require_alike, without_dropout

STUDY = """
config: small.yaml
set: {trainer.max_steps: 5, trainer.val_check_interval: 2}
axes:
  method:
    RED: {model.method: RED}
    FT: {model.method: FullFineTuning, model.learning_rate: 1e-4}
  seed: {key: seed_everything, values: [7, 8]}
report: {rows: method}
"""
SELECT = "select: {on: validation, over: model.learning_rate, values: [1e-3, 1e-2], budget: 2, seed: 7}\n"
RED = ("run", "mine.yaml", "--only", "method=RED")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study called ``mine.yaml`` of an experiment called ``small.yaml``, whose backbone draws nothing in training."""
    write_experiment(tmp_path, without_dropout(tmp_path / "gpt2", "gpt2"))
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    return path


def listed(dry_run: Outcome) -> list[list[str]]:
    """The commands that a dry run lists, from ``fit`` on."""
    return [shlex.split(line)[3:] for line in dry_run.out.splitlines() if line.startswith("python ")]


def test_cells_together_are_the_cells_alone(cli: CLI, study: Path, tmp_path: Path) -> None:
    shown = done(cli("study", *RED, "--together", "2"))
    assert "[1/2] RED-7: done in" in shown.out
    assert "[2/2] RED-8: done in" in shown.out
    for command in listed(done(cli("study", *RED, "--folder", "alone", "--dry_run"))):
        done(cli(*command))
    for name in ("RED-7", "RED-8"):
        require_alike(tmp_path / "studies/mine/runs" / name, tmp_path / "alone/mine/runs" / name)
        assert f"run folder: studies/mine/runs/{name}\n" in (tmp_path / f"studies/mine/cells/{name}.log").read_text()
    assert "2 runs: 2 done" in done(cli("study", *RED)).out
    assert "2 runs to go" in cli("study", "status", "mine.yaml").out
    assert not list((tmp_path / "studies/mine/cells").glob("?*.lock"))
    (again,) = listed(done(cli("study", *RED, "--together", "2", "--dry_run", "--set", "trainer.max_steps=3")))
    done(cli(*again))  # what is stale is replaced
    assert [results(tmp_path / f"studies/mine/runs/RED-{seed}")["train"]["steps"] for seed in (7, 8)] == [3, 3]


def test_a_dry_run_lists_one_command_for_a_group(cli: CLI, study: Path) -> None:
    shown = done(cli("study", "run", "mine.yaml", "--dry_run", "--together", "3"))
    commands = [line for line in shown.out.splitlines() if line.startswith(("python ", "# RED", "# FT"))]
    assert [line.split(":")[0] for line in commands if line.startswith("#")] == [
        "# RED-7",
        "# RED-8",
        "# FT-7",
        "# FT-8",
    ]
    assert [line.startswith("#") for line in commands] == [True, True, False, True, False, True, False]
    assert commands[2].count('"seed_everything"') == 2
    assert "model.method.replicas" not in commands[4] + commands[6]
    assert "--together is 0, but must be at least 1" in cli("study", *RED, "--together", "0").error


@pytest.mark.slow
def test_each_cell_of_a_group_fails_for_itself(cli: CLI, study: Path, tmp_path: Path) -> None:
    """One ends before anything was trained, another one later: the third goes on."""
    kinds = "{good: {}, missing: {data.train_file: none.jsonl}, wild: {model.learning_rate: 1e29}}"
    text = STUDY.replace("  seed:", f"  kind: {kinds}\n  seed:").replace("[7, 8]", "[7]")
    study.write_text(text.replace("rows: method", "rows: [method, kind]"))
    shown = cli("study", *RED, "--together", "3")
    assert "2 of 3 runs failed" in shown.error
    reasons = {line.split(": ")[1]: line for line in shown.out.splitlines() if line.startswith("failed: ")}
    assert "none.jsonl" in reasons["RED-missing-7"]
    assert "lower model.learning_rate" in reasons["RED-wild-7"]
    assert "[1/3] RED-good-7: done in" in shown.out
    assert results(tmp_path / "studies/mine/runs/RED-good-7")["scores"]


@pytest.mark.slow
def test_an_interrupted_group_goes_on(cli: CLI, study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY.replace("max_steps: 5", "max_epochs: 30"))
    command = [sys.executable, "-m", "red_lightning", "study", *RED, "--together", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    lasts = [tmp_path / f"studies/mine/runs/{name}/checkpoints/last.ckpt" for name in ("RED-7", "RED-8")]
    for _ in range(600):
        if all(last.exists() for last in lasts):
            break
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    cells = tmp_path / "studies/mine/cells"
    assert [json.loads((cells / f"RED-{seed}.json").read_text())["status"] for seed in (7, 8)] == ["interrupted"] * 2
    assert not list(cells.glob("?*.lock"))
    goes_on = run_apart(tmp_path, *command[3:])
    assert goes_on.returncode == 0, goes_on.stderr
    for seed in (7, 8):
        assert f"continuing from last.ckpt of RED-{seed}" in (cells / f"RED-{seed}.log").read_text()
        assert results(tmp_path / f"studies/mine/runs/RED-{seed}")["train"]["steps"] == 180


@pytest.mark.slow
def test_a_setting_is_chosen_together_as_alone(study: Path, tmp_path: Path) -> None:
    """What was trained to choose is tested, beside the runs of the other seeds."""
    study.write_text(STUDY.replace("[7, 8]", "[7, 8, 9]") + SELECT)
    for folder, size in {"together": "4", "alone": "1"}.items():
        ended = run_apart(tmp_path, "study", *RED, "--folder", folder, "--together", size)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in ("RED-7", "RED-8", "RED-9"):
        require_alike(tmp_path / "together/mine/runs" / name, tmp_path / "alone/mine/runs" / name)
    for rate in ("0.001", "0.01"):
        tried = [results(tmp_path / f / f"mine/runs/RED-7-learning_rate={rate}") for f in ("together", "alone")]
        assert tried[0]["selection"]["score"] == pytest.approx(tried[1]["selection"]["score"], rel=1e-6)
        assert [run["scores"] for run in tried] == [{}, {}]
    log = (tmp_path / "together/mine/cells/RED-7.log").read_text()
    assert "continuing from last.ckpt of RED-7" in log
