"""The metric that selects the best checkpoint, and its replacement if it is not available."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from red_lightning.errors import UsageError


@dataclass(frozen=True)
class Criterion:
    """A validation metric, and whether smaller or larger is better.

    Attributes:
        monitor: Name of a validation metric of the task.
        mode: Whether the smallest (``min``) or the largest (``max``) value is best.
    """

    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"


def require_mode(criterion: Any, right: str, name: str = "checkpoint") -> None:
    """Refuse to keep the worst checkpoint.

    Args:
        criterion: What has a ``monitor`` and a ``mode``: settings, a :class:`Criterion`, or a callback.
        right: The mode in which the metric is best.
        name: The setting, for the error.

    Raises:
        UsageError: The mode is the other one.
    """
    if criterion.mode != right:
        size = "smallest" if right == "min" else "largest"
        raise UsageError(
            f"{name}.mode is {criterion.mode}, but {criterion.monitor} is best when {size}; give --{name}.mode {right}"
        )


@dataclass(frozen=True)
class Replacement:
    """A criterion that replaces the configured one.

    Attributes:
        criterion: The criterion in use.
        reason: Why the configured one cannot be used.
        told: The sentence for the user.
    """

    criterion: Criterion
    reason: str
    told: str


def replacement(
    wanted: Criterion, fallback: Criterion | None, began: Mapping[str, Any], reason: str | None, way: str
) -> Replacement | None:
    """Return what chooses the best checkpoint in place of the wanted metric; None if that one does.

    A resumed run keeps what it began with, because the best scores of two metrics cannot be compared.

    Args:
        wanted: The criterion that was asked for.
        fallback: The one that may replace it.
        began: The state of :class:`~red_lightning.callbacks.BestCheckpoint` in the run that is resumed, or empty.
        reason: Why the wanted metric cannot be measured; None if it can.
        way: What makes it measurable, as an imperative.

    Raises:
        UsageError: It cannot be measured, and there is no fallback or the resumed run began with it.
    """
    same = began if began.get("wanted") == wanted.monitor else {}
    replaced = same.get("reason") if fallback and same.get("monitor") == fallback.monitor else None
    if reason is None and replaced is None:
        return None
    if reason is not None and same and not same["reason"]:
        raise UsageError(
            f"this run began to choose its best checkpoint by {wanted.monitor} and cannot change to another metric, "
            f"but {reason}; {way}, or start a new run"
        )
    if fallback is None:
        raise UsageError(
            f"the checkpoint is chosen by {wanted.monitor}, but {reason}; {way}, or choose by another metric, as with "
            "--checkpoint.monitor val_loss --checkpoint.mode min"
        )
    if reason is None:
        return Replacement(
            fallback,
            str(replaced),
            f"note: {wanted.monitor} can be measured now, but this run began to choose its best checkpoint by "
            f"{fallback.monitor} and keeps it, because scores of two metrics cannot be compared; "
            f"start a new run to choose by {wanted.monitor}",
        )
    return Replacement(
        fallback,
        reason,
        f"note: {reason}, so the best checkpoint is chosen by {fallback.monitor} ({fallback.mode}) instead of "
        f"{wanted.monitor} ({wanted.mode}); to choose by {wanted.monitor}, {way}",
    )
