"""Check whether a backbone and a method support packing and shared sources."""

from typing import Any

from red_lightning.efficiency.shared_sources import MASKED, can_share
from red_lightning.errors import UsageError
from red_lightning.families import can_pack
from red_lightning.tasks.backbone_task import BackboneTask


def require_packing(task: BackboneTask) -> None:
    """Refuse packing that would mix examples.

    Raises:
        UsageError: Names what cannot tell them apart.
    """
    saves = "give --data.packing false (data.group_by_length saves padding too)"
    config = task.source.config
    if not can_pack(config):
        raise UsageError(
            f"data.packing is true, but the model family '{config.model_type}' of the backbone "
            f"'{task.source.name}' is not known to keep packed examples apart; {saves}"
        )
    if not task.method.packs:
        raise UsageError(
            f"data.packing is true, but model.method {type(task.method).__name__} cannot tell the examples of a "
            f"packed row apart; {saves}"
        )


def shares(task: BackboneTask, tokens: int) -> bool:
    """Whether a source can be read once for all of its targets.

    Args:
        task: The backbone and the method.
        tokens: The most tokens of a source and a target.
    """
    apart = task.encoder_decoder or task.method.packs  # an encoder-decoder's rows stay rows
    return apart and can_share(task.source.config, task.backbone_options.attention, tokens)


def require_sharing(task: BackboneTask, data: Any) -> None:
    """Refuse batches of whole sources where each target would have its source read anew.

    Args:
        task: The backbone and the method.
        data: The data module, with ``max_source_length`` and ``max_target_length``.

    Raises:
        UsageError: Names what cannot share.
    """
    tokens = data.max_source_length + data.max_target_length
    if shares(task, tokens):
        return
    config, attention = task.source.config, task.backbone_options.attention
    if not task.method.packs:
        culprit = f"model.method {type(task.method).__name__}"
    elif attention not in MASKED:
        culprit = f"model.backbone_options.attention {attention}"
    elif can_pack(config):
        culprit = f"the sliding window of the backbone '{task.source.name}', which is shorter than {tokens} tokens,"
    else:
        culprit = f"the model family '{config.model_type}' of the backbone '{task.source.name}'"
    raise UsageError(
        f"data.share_sources is true, but {culprit} cannot let targets share their source; give --data.share_sources "
        "false (data.group_by_length saves padding)"
    )
