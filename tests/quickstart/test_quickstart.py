"""The quickstart keeps its promise: the edits adapt the frozen backbone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / "configs/quickstart.yaml"


@pytest.mark.slow
def test_edits_beat_the_unedited_backbone_and_come_near_full_fine_tuning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "red_lightning", "fit", "--config", str(CONFIG), "--run.name", "promise"]
    metrics = ["--model.metrics", "[BLEU, NIST, ROUGE_L, CIDEr]"]
    run = subprocess.run([*command, *metrics], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "runs/promise/results.json").read_text())
    unedited, edited = results["baseline_scores"], results["scores"]
    full = yaml.safe_load(CONFIG.read_text())["run"]["beside"]["all weights trained"]
    for name in ("BLEU", "NIST", "ROUGE_L", "CIDEr"):
        assert edited[name] >= 0.75 * full[name]
    assert edited["BLEU"] >= 3 * unedited["BLEU"]
    assert results["trainable_parameters"] == 2048
    assert run.stdout.count("unedited") >= 4  # the table, and three samples
    for name in ("best", "last"):
        assert (tmp_path / f"runs/promise/checkpoints/{name}.ckpt").stat().st_size < 60_000
