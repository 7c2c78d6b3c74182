"""A study as a job array of a real SLURM of one node, which is brought up for this test where it is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backbones_zoo import save_backbone
from tests.cli.commands import environment, write_classifier
from tests.cli.test_study import SELECT, STUDY
from tests.test_launch import Cluster, cluster, wait  # noqa: F401 - cluster is a fixture

pytestmark = pytest.mark.slow

SLURM = ("--launcher", "slurm", "--slurm", "gpus_per_node=0", "timeout_min=20", "cpus_per_task=1")


def test_a_study_runs_as_two_job_arrays(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    write_classifier(tmp_path, save_backbone("roberta", tmp_path / "roberta"))
    (tmp_path / "mine.yaml").write_text(STUDY.replace(", model.learning_rate: 1e-4", "") + SELECT)

    def study(*args: str) -> str:
        env = environment(SLURM_CONF=str(cluster.folder / "slurm.conf"))
        command = [sys.executable, "-m", "red_lightning", "study", *args]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def all_ended() -> bool:
        shown = cluster.call("squeue", "--noheader")
        return not shown.strip()

    runs = tmp_path / "studies/mine/runs"
    shown = study("run", "mine.yaml", *SLURM)
    assert "submitted 4 jobs: " in shown and "run the same command again when they have ended" in shown
    again = study("run", "mine.yaml", *SLURM)
    assert "submitted" not in again, "jobs that wait or run are not submitted twice"
    wait(all_ended, 600)
    assert len(list(runs.glob("*-learning_rate=*/results.json"))) == 4, logs(tmp_path)
    assert "submitted 2 jobs: " in study("run", "mine.yaml", *SLURM)
    wait(all_ended, 600)
    tested = [json.loads((runs / name / "results.json").read_text()) for name in ("RED-42", "FT-42")]
    assert all(result["scores"] for result in tested)
    assert "2 done" in study("run", "mine.yaml", *SLURM)
    assert "Chosen on the validation split" in study("report", "mine.yaml")


def logs(folder: Path) -> str:
    """What the jobs printed."""
    return "\n".join(file.read_text() for file in sorted(folder.glob("studies/mine/slurm/*.err")))
