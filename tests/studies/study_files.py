"""Small studies, written and expanded in this process, and runs that are made up."""

import json
import time
from pathlib import Path
from typing import Any

from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.cells import Cell, Files, expand
from red_lightning.studies.study_file import Study, read_study

EXPERIMENT = """
seed_everything: 1
model:
  class_path: Classification
  init_args:
    backbone: FacebookAI/roberta-base
    method: {class_path: RED, init_args: {sites: [ffn]}}
    learning_rate: ${paper:roberta_base,learning_rate}
data: {class_path: GLUE, init_args: {task: mrpc}}
trainer: {max_epochs: 3, logger: false}
checkpoint: {monitor: val_score, mode: max}
"""
FILES = Files(lambda name: (name, EXPERIMENT), lambda name: "class_path: LoRA\ninit_args: {rank: 3}")
STUDY: dict[str, Any] = {
    "config": "base",
    "axes": {
        "method": {
            "FT": {"model.method": "FullFineTuning"},
            "LoRA": {"recipe": "roberta_base", "model.method": "LoRA"},
            "RED": {"model.method": "RED"},
        },
        "task": {"key": "data.task", "values": ["mrpc", "cola"]},
        "seed": {"key": "seed_everything", "values": [42, 43, 44]},
    },
    "report": {"rows": "method", "columns": "task", "against": "RED", "average": True},
}


def study_of(folder: Path, name: str = "mine", **parts: Any) -> Study:
    """A study with some of its parts replaced."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({**STUDY, **parts}), encoding="utf-8")  # JSON is YAML
    return read_study(path)


def cells_of(study: Study) -> dict[str, Cell]:
    """Its cells by name."""
    return {cell.name: cell for cell in expand(study, FILES)}


def finish(folder: StudyFolder, cell: Cell, **result: Any) -> None:
    """Write what a run of a cell would have left behind."""
    folder.cells.mkdir(parents=True, exist_ok=True)
    run = folder.runs / cell.name
    run.mkdir(parents=True, exist_ok=True)
    selection = {"monitor": "val_score", "mode": "max", "score": 0.5, "step": 3}
    content = {"scores": {}, "selection": selection, "trainable_parameters": 7, **result}
    (run / "results.json").write_text(json.dumps(content), encoding="utf-8")
    folder.note(cell, status="done", started=time.time(), seconds=60.0)
