"""The parts that choose loggers."""

import csv
from pathlib import Path

import pytest

from tests.cli.commands import FIT, environment, run_apart
from tests.cli.conftest import CLI

PARTS = Path(__file__).parents[2] / "configs/trainer"


def logger(name: str) -> tuple[str, ...]:
    return ("--trainer.logger", str(PARTS / f"{name}.yaml"), "--trainer.log_every_n_steps", "2", "--run.name", "x")


def test_speed_is_logged_and_told(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    outcome = cli(*FIT, *logger("csv"))
    assert outcome.status == 0, outcome.err
    assert outcome.out.count(" tokens/s, ") == 6
    with (tmp_path / "runs/x/logs/csv/metrics.csv").open(newline="") as file:
        speeds = [float(row["tokens_per_second"]) for row in csv.DictReader(file) if row["tokens_per_second"]]
    assert len(speeds) == 6
    assert min(speeds) > 0


def test_weights_and_biases_without_a_network(experiment: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    done = run_apart(tmp_path, *FIT, *logger("wandb"), env=environment(WANDB_MODE="offline", WANDB_SILENT="true"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs/x/logs/wandb").glob("offline-run-*/*.wandb"))
