"""Two processes train, measure and answer what one does, with rows that two cannot share equally."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.backbones_zoo import save_backbone
from tests.cli.commands import results, rows, run_apart
from tests.conversations import conversation

pytestmark = pytest.mark.slow

TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment, and a run of one process called ``one``."""
    folder = tmp_path_factory.mktemp("tuning")
    for name, first, count in (("train", 0, 11), ("validation", 100, 5), ("test", 200, 5), ("predict", 300, 3)):
        lines = [json.dumps({"messages": conversation(first + number)}) for number in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {f"{name}_file": f"{name}.jsonl" for name in ("train", "validation", "test", "predict")}
    experiment = {
        "seed_everything": 7,
        "model": {
            "class_path": "InstructionTuning",
            "init_args": {
                "backbone": str(save_backbone("llama", folder / "backbone", dropout=0.0)),
                "method": {"class_path": "RED"},
                "learning_rate": 0.01,
                "decoding": {"num_beams": 1, "max_new_tokens": 6, "repetition_penalty": 1.1},
            },
        },
        "data": {
            "class_path": "Instructions",
            "init_args": {
                **files,
                "global_batch_size": 4,
                "micro_batch_size": 1,
                "eval_batch_size": 2,
                "max_length": 200,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "SampleGenerations"}],
        },
    }
    (folder / "small.yaml").write_text(json.dumps(experiment), encoding="utf-8")
    run(folder, "fit", "--run.name", "one", "--trainer.devices", "1")
    return folder


def run(folder: Path, command: str, *args: str) -> None:
    done = run_apart(folder, command, "--config", "small.yaml", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def same_scores(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["scores"] == pytest.approx(expected["scores"], rel=1e-5)


@pytest.mark.parametrize("packing", ["false", "true"])
def test_two_processes_train_what_one_trains(packing: str, folder: Path) -> None:
    name = f"two-{packing}"
    run(folder, "fit", "--run.name", name, "--data.packing", packing, *TWO)
    one, two = folder / "runs/one", folder / "runs" / name
    same_scores(results(two), results(one))
    trained = [(run["train"]["steps"], run["train"]["epochs"]) for run in (results(two), results(one))]
    assert trained[0] == trained[1]
    edits = (load_file(path / "edits/edits.safetensors") for path in (one, two))
    torch.testing.assert_close(*edits, rtol=0, atol=1e-5)
    found, expected = rows(two / "test_predictions.jsonl"), rows(one / "test_predictions.jsonl")
    assert [row["row"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["tokens"] for row in found] == [row["tokens"] for row in expected]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-4)
    assert rows(two / "samples.jsonl") == rows(one / "samples.jsonl")


def test_two_processes_answer_what_one_answers(folder: Path) -> None:
    best = ("--ckpt_path", str(folder / "runs/one/checkpoints/best.ckpt"))
    run(folder, "predict", *best, "--run.name", "p1", "--trainer.devices", "1")
    run(folder, "predict", *best, "--run.name", "p2", *TWO)
    found, expected = (rows(folder / "runs" / name / "predictions.jsonl") for name in ("p2", "p1"))
    assert [row["row"] for row in expected] == [0, 1, 2]
    assert found == expected
    run(folder, "test", *best, "--run.name", "t2", *TWO)
    same_scores(results(folder / "runs/t2"), results(folder / "runs/one"))
