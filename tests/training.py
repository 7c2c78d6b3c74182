"""Small training runs in this process."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything

from red_lightning import RED
from red_lightning.callbacks import BestCheckpoint, FiniteSteps
from red_lightning.data import TextPairs
from red_lightning.generation import Decoding
from red_lightning.tasks import DataToText

NAMES = ["Blue Spice", "The Vaults", "Zizzi", "Cocum", "Giraffe"]
FOODS = ["Thai", "Italian", "French"]


def write_pairs(path: Path, count: int, references: int = 1) -> Path:
    """Write ``count`` distinct sources with some references each as JSONL."""
    lines = []
    for index in range(count):
        name, food = NAMES[index % 5], FOODS[index % 3]
        source = f"name[{name} {index}], food[{food}]"
        for reference in range(references):
            target = [f"{name} {index} serves {food} food.", f"There is {food} food at {name} {index}."][reference]
            lines.append(json.dumps({"source": source, "target": target}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_task(backbone: Path, **options: Any) -> DataToText:
    """A task with quick decoding and the metrics that need no Java."""
    settings: dict[str, Any] = {
        "method": RED(),
        "learning_rate": 1e-2,
        "decoding": Decoding(num_beams=2, max_new_tokens=5),
        "metrics": ["BLEU"],
    }
    return DataToText(str(backbone), **{**settings, **options})


def make_data(folder: Path, rows: int = 11, **options: Any) -> TextPairs:
    """Training rows, and validation and test rows of other sources."""
    train = write_pairs(folder / "train.jsonl", rows)
    validation = write_pairs(folder / "validation.jsonl", 4, references=2)
    return TextPairs(str(train), str(validation), **{"global_batch_size": 2, "eval_batch_size": 3, **options})


def make_trainer(folder: Path, checkpoint: BestCheckpoint | None = None, **options: Any) -> Trainer:
    """A quiet trainer on one CPU process."""
    seed_everything(7, verbose=False)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 3,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "callbacks": [checkpoint or BestCheckpoint(), FiniteSteps()],
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **options})


def learned(task: DataToText) -> dict[str, torch.Tensor]:
    """Copies of what trains."""
    return {name: parameter.detach().clone() for name, parameter in task.trainable_parameters().items()}
