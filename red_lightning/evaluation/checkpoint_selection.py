"""Configure the metric that selects the best checkpoint of a fit, before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from red_lightning.callbacks import BestCheckpoint, never_logged
from red_lightning.callbacks.criterion import require_mode
from red_lightning.evaluation import TaskScore
from red_lightning.runs.folder import is_first_process
from red_lightning.tasks import BackboneTask


def refuse_unfit(checkpoint: Any, task: BackboneTask, others_log: bool) -> None:
    """Refuse a metric that validation never logs, and a mode that would keep the worst checkpoint.

    Args:
        checkpoint: The settings of ``checkpoint``.
        task: The task.
        others_log: Whether callbacks may log metrics besides the task's own.

    Raises:
        UsageError: Names the setting.
    """
    if checkpoint.monitor not in task.validation_metrics and not others_log:
        raise never_logged(checkpoint.monitor, task.validation_metrics)
    _require_mode("checkpoint", checkpoint, task)
    if checkpoint.fallback is not None:
        if checkpoint.fallback.monitor not in task.validation_metrics:
            raise never_logged(checkpoint.fallback.monitor, task.validation_metrics, "checkpoint.fallback")
        _require_mode("checkpoint.fallback", checkpoint.fallback, task)


def settle(trainer: Trainer, began: Mapping[str, Any] | None) -> None:
    """Decide whether a benchmark or its fallback chooses, and report it.

    The other processes follow in the callback's ``setup``, where they can agree.

    Args:
        trainer: The trainer of the fit.
        began: The state of its :class:`BestCheckpoint` in the run that is resumed, if one is.
    """
    keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, BestCheckpoint)]
    for keeper in keepers:
        keeper.began = began
    if is_first_process():
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TaskScore):
                callback.prepare(keepers)
    for keeper in keepers:
        if began and began["monitor"] != keeper.monitor and is_first_process():
            print(
                f"note: this run chose its best checkpoint by {began['monitor']} so far; "
                f"from now on {keeper.monitor} chooses, and what was best before is not compared"
            )


@rank_zero_only
def report(selection: Mapping[str, Any]) -> None:
    """Say at the end of a run that the fallback has chosen, if it has.

    Args:
        selection: What results.json says of it.
    """
    if reason := selection["reason"]:
        print(
            f"note: the best checkpoint was chosen by {selection['monitor']} instead of {selection['wanted']}, "
            f"because {reason}"
        )


def _require_mode(name: str, criterion: Any, task: BackboneTask) -> None:
    if criterion.monitor in task.validation_metrics:
        require_mode(criterion, "min" if criterion.monitor in task.smaller_is_better else "max", name)
