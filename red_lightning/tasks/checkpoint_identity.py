"""Decide whether a run may resume from a checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from red_lightning.backbones.quantization import backbone_of
from red_lightning.data.held_out import digests_of
from red_lightning.errors import UsageError

RECORD = "red_lightning"
"""Key of a checkpoint under which the task says what it belongs to."""


def belonging(checkpoint: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint belongs to, if that is the same as the task's.

    Args:
        checkpoint: Its contents.
        mine: The task's own record.

    Raises:
        UsageError: Another backbone, other sites, a damaged file, or one that another program wrote.
    """
    record = checkpoint.get(RECORD)
    if record is None:
        raise UsageError("the checkpoint was not written by red_lightning: it does not say what it belongs to")
    if record["fingerprint"] != mine["fingerprint"]:
        raise UsageError(
            f"the checkpoint belongs to another backbone: it was trained on {backbone_of(record)}, "
            f"whose weights are not those of model.backbone {backbone_of(mine)}"
        )
    theirs, ours = record["shapes"], mine["shapes"]
    if theirs != ours:
        differing = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
        raise UsageError(
            f"the checkpoint belongs to other settings of model.method: it holds {len(theirs)} trained tensors "
            f"({_settings(record['method'])}), this run trains {len(ours)} ({_settings(mine['method'])}); "
            f"they first differ at '{differing[0]}'"
        )
    if missing := sorted(set(ours) - set(checkpoint["state_dict"])):
        raise UsageError(f"the checkpoint is damaged: it lacks the values of '{missing[0]}'")
    return dict(record)


def recount(fit_loop: dict[str, Any], before: int, now: int) -> None:
    """Let a run continue at its optimizer step with another accumulation: Lightning counts micro-batches.

    Args:
        fit_loop: The state of Lightning's loop, which is changed.
        before: Micro-batches of a step when it was saved.
        now: Micro-batches of a step now.
    """
    if before == now:
        return
    progress = fit_loop["epoch_loop.batch_progress"]
    ready = progress["current"]["ready"]
    later = -(-ready // before) * now - ready
    for counts in (progress["current"], progress["total"]):
        counts.update({name: count + later for name, count in counts.items()})


def refuse_other_rows(theirs: Mapping[str, Any], ours: Mapping[str, Any], known: bool = False) -> None:
    """Refuse to score rows that a checkpoint was trained on or chosen by.

    Args:
        theirs: The options by which rows were held out when it was trained.
        ours: The options now.
        known: Whether the rows that were held out are known by their content, so that their number may differ.

    Raises:
        UsageError: Names the first that differs.
    """
    for name in {**theirs, **ours}:
        if name == "rows" and known:
            continue
        if theirs.get(name) != ours.get(name):
            what = "the training file had" if name == "rows" else f"rows were held out by {name}"
            way = "a --data.test_file" if name == "rows" else f"--data.{name} {theirs.get(name)}"
            raise UsageError(
                f"when the checkpoint was trained, {what} {theirs.get(name)}{' rows' * (name == 'rows')}, now "
                f"{ours.get(name)}: rows that it was trained on or chosen by would be scored; give {way}"
            )


def refuse_other_content(theirs: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> None:
    """Refuse to continue a fit with other held-out rows than it began with.

    Args:
        theirs: What the checkpoint knows of its training file; empty or None for older ones.
        ours: The same of the file now.

    Raises:
        UsageError: Rows that were held out would be trained on.
    """
    if theirs and ours:
        for split, held in theirs["held_out"].items():
            mine = {digest for own in ours["held_out"].values() for digest in digests_of(own)}
            if gone := {*digests_of(held)} - mine:
                raise UsageError(
                    f"{len(gone):,} of the {split} rows that the checkpoint held out are no longer held out; give the "
                    "training file as it was, or continue through the command line with --data.changed_rows keep"
                )


def require_fitting_state(optimizers: Iterable[Any]) -> None:
    """Refuse optimizer states of other shapes than their parameters: a step would read behind the end of a tensor.

    Args:
        optimizers: Those of the Trainer, after a checkpoint was restored.

    Raises:
        UsageError: The checkpoint is damaged.
    """
    for optimizer in optimizers:
        for parameter, state in getattr(optimizer, "state", {}).items():
            for name, value in state.items() if isinstance(state, Mapping) else ():
                if type(value) is Tensor and value.dim() and value.shape != getattr(parameter, "shape", value.shape):
                    raise UsageError(
                        f"the checkpoint is damaged: '{name}' of its optimizer has the shape {tuple(value.shape)}, but "
                        f"the parameter has {tuple(parameter.shape)}; resume from another one"
                    )


def other_encoding(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option by which rows become other tokens than in the training of a checkpoint."""
    return [
        f"data.{name} is {ours.get(name)!r:.60}, but the checkpoint was trained with {value!r:.60}"
        for name, value in theirs.items()
        if ours.get(name) != value
    ]


def _settings(method: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in method.items())
