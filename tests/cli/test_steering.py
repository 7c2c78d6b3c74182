"""``fit`` with a method that computes what it adds: one step that trains nothing, a validation, and a result."""

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.cli.commands import FIT, results
from tests.cli.conftest import CLI

STEERING = ("--model.method", "SteeringVector", "--model.method.pairs", "pairs.jsonl", "--model.method.layer", "0")
PAIR = {"positive": "Blue Spice serves Thai food.", "negative": "Blue Spice serves food."}


def test_a_steering_vector_is_computed_and_tested(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR), encoding="utf-8")
    fitted = cli(*FIT, *STEERING, "--run.name", "steered", "--run.baseline", "true")
    assert fitted.status == 0, fitted.err
    run = tmp_path / "runs/steered"
    written = results(run)
    assert written["train"]["steps"] == 1
    assert written["trainable_parameters"] == 32
    assert written["method"] == {"name": "SteeringVector", "pairs": "pairs.jsonl", "layer": 0, "strength": 1.0}
    assert written["selection"]["step"] == 1
    (vector,) = load_file(run / "edits/edits.safetensors").values()
    assert vector.abs().sum() > 0
    tested = cli("test", "--config", "small.yaml", *STEERING, "--ckpt_path", str(run / "checkpoints/best.ckpt"))
    assert tested.status == 0, tested.err


def test_pairs_that_are_not_there_are_refused(cli: CLI, experiment: Path) -> None:
    assert "model.method.pairs 'pairs.jsonl' cannot be read" in cli(*FIT, *STEERING).error
