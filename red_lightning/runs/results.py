"""Collect the contents of results.json, and save the adapter of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from red_lightning.adapters import save_edits
from red_lightning.callbacks import FiniteSteps, Throughput
from red_lightning.efficiency.verification import refused_paths
from red_lightning.runs import display
from red_lightning.tasks import BackboneTask

OF_THE_RUN = (
    "baseline",
    "baseline_scores",
    "missing",
    "selection",
    "train",
    "libraries",
    "refused_fast_paths",
    "per_class",
    "confusion",
)
"""What results.json says that does not belong to the edits."""


def of_training(trainer: Trainer, seconds: float) -> dict[str, Any]:
    """How a run was trained.

    Args:
        trainer: It, after the fit.
        seconds: How long the fit took.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    skipped = next((callback.skipped_steps for callback in callbacks if isinstance(callback, FiniteSteps)), 0)
    measured = next((callback.measured for callback in callbacks if isinstance(callback, Throughput)), {})
    return {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "skipped_steps": skipped,
        "processes": trainer.world_size,
        "accumulation": trainer.accumulate_grad_batches,
        "seconds": round(seconds, 1),
        "throughput": {name: round(value, 4) for name, value in measured.items()},
    }


def of_run(run: Path, task: BackboneTask, data: Any, scores: Mapping[str, float | None]) -> dict[str, Any]:
    """What was found, on what, and what it belongs to.

    Args:
        run: The run's folder.
        task: The task, after the test.
        data: Its data module.
        scores: The test scores.
    """
    baseline = run / "baseline.json"
    return {
        "scores": scores,
        "baseline": task.unedited.split()[0],
        "baseline_scores": display.read_json(baseline) if baseline.exists() else None,
        "missing": task.missing_metrics,
        **task.trainable_counts(),
        **task.details,
        **{key: value for key, value in task.record().items() if key != "shapes"},
        "data": {**_provenance(data), "rows": getattr(data, "counts", {})},
        "libraries": display.libraries(),
        "refused_fast_paths": refused_paths(task.backbone),
    }


def _provenance(data: Any) -> dict[str, Any]:
    """Where the data come from; of a user's own data module that does not say, its class."""
    return data.provenance() if hasattr(data, "provenance") else {"class": type(data).__name__}


def save_edits_of(folder: Path, learned: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Write the edits, with the scores and all that says what they belong to.

    Args:
        folder: Where they go.
        learned: What was trained, by its name in the task.
        found: The contents of results.json.
    """
    tensors = {name.removeprefix("backbone."): tensor for name, tensor in learned.items()}
    save_edits(folder, tensors, {name: value for name, value in found.items() if name not in OF_THE_RUN})
