"""Small experiments, and ways to run the command line on them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.training import write_pairs

REPOSITORY = Path(__file__).resolve().parents[2]

CHILD_PATH = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests/child_processes")])
"""Where child processes find the package, and the module that turns warnings into errors."""

FIT = ("fit", "--config", "small.yaml")
"""The beginning of a command line that fits the small experiment."""


def write_experiment(folder: Path, backbone: Path, name: str = "small", **trainer: Any) -> Path:
    """Write an experiment on 11 training rows and 8 validation rows, which are also the test's 4 sources."""
    write_pairs(folder / "train.jsonl", 11)
    write_pairs(folder / "validation.jsonl", 4, references=2)
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "num_sanity_val_steps": 1,
        **trainer,
    }
    experiment = {
        "seed_everything": 7,
        "model": {
            "class_path": "DataToText",
            "init_args": {
                "backbone": str(backbone),
                "method": {"class_path": "RED", "init_args": {"sites": ["ffn"]}},
                "learning_rate": 0.01,
                "decoding": {"num_beams": 1, "max_new_tokens": 5},
                "metrics": ["BLEU", "ROUGE_L"],
            },
        },
        "data": {
            "class_path": "TextPairs",
            "init_args": {
                "train_file": "train.jsonl",
                "validation_file": "validation.jsonl",
                "global_batch_size": 2,
                "eval_batch_size": 3,
            },
        },
        "trainer": options,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(experiment, indent=2), encoding="utf-8")  # JSON is YAML
    return path


FOODS, PLACES = ["Thai", "Italian", "French"], ["riverside", "city centre", "pub", "The Vaults", "Burger King"]


def write_texts(path: Path, labels: list[str], count: int = 60) -> Path:
    """Texts whose label follows the food, as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(count):
            kind = index % len(labels)
            writer.writerow([f"{PLACES[index % 5]} {index} serves {FOODS[kind]} food", labels[kind]])
    return path


def write_classifier(folder: Path, backbone: Path) -> Path:
    """Write an experiment on 60 texts of three classes, called ``texts.yaml``."""
    write_texts(folder / "train.csv", ["thai", "italian", "french"])
    experiment = {
        "seed_everything": 7,
        "model": {
            "class_path": "Classification",
            "init_args": {
                "backbone": str(backbone),
                "method": {"class_path": "RED", "init_args": {"sites": ["ffn"]}},
                "learning_rate": 0.02,
            },
        },
        "data": {
            "class_path": "LabeledTexts",
            "init_args": {"train_file": "train.csv", "global_batch_size": 8, "max_length": 64},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "enable_progress_bar": False},
        "checkpoint": {"monitor": "val_score", "mode": "max"},
    }
    path = folder / "texts.yaml"
    path.write_text(json.dumps(experiment), encoding="utf-8")
    return path


def environment(**variables: str) -> dict[str, str]:
    """An environment for child processes that holds nothing of another run, with as many threads as the tests have."""
    mine = ("RED_LIGHTNING_RUN", "PL_GLOBAL_SEED", "SLURM_JOB_ID", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in mine}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": CHILD_PATH, **variables}


def command_line(*args: str) -> list[str]:
    """The command line of a child process."""
    return [sys.executable, "-m", "red_lightning", *args]


def run_apart(folder: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        command_line(*args), cwd=folder, env=env or environment(), capture_output=True, text=True, timeout=300
    )


def imported_by(*args: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that ends with those heavy libraries on stderr which the command has imported."""
    heavy = "('torch', 'lightning', 'transformers', 'jsonargparse', 'datasets')"
    code = (
        f"import sys; from red_lightning.__main__ import main; status = main({list(args)}); "
        f"sys.exit(status or ' '.join(name for name in {heavy} if name in sys.modules))"
    )
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)


def results(run: Path) -> dict[str, Any]:
    """A run's result without the time that it took."""
    content = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for measured in ("seconds", "throughput"):
        content.get("train", {}).pop(measured, None)
    return content


def rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
