"""Compare the outputs of a merged checkpoint with those of the edited model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import Tensor

from red_lightning.adapters.edited import find_edits, load
from red_lightning.adapters.file_format import read_record
from red_lightning.adapters.record_checks import method_class
from red_lightning.backbones.classification_head import ClassificationHead, pool
from red_lightning.backbones.loading import BackboneOptions, silence
from red_lightning.export.merged_checkpoint import Merged
from red_lightning.families.positions import position_limit

PROBE = "The Vaults is a cheap pub near Burger King; 21 people asked: what is the French word for a river?"
"""The text whose logits are compared."""


class Difference(NamedTuple):
    """How far the outputs of two models are apart.

    Attributes:
        largest: The largest absolute difference.
        scale: The largest absolute output of the edited model.
        of: What was compared: ``logit``, or ``hidden state`` of an encoder without a head.
    """

    largest: float
    scale: float
    of: Literal["logit", "hidden state"]


def largest_difference(
    merged: Merged,
    edits: str | Path,
    backbone: str | None = None,
    revision: str | None = None,
    trust: Sequence[str] = (),
) -> Difference:
    """Compare the logits (without a head, the hidden states) of :data:`PROBE`, both computed in the merged dtype.

    One model is in memory at a time.

    Args:
        merged: What :func:`~red_lightning.export.merged_checkpoint.export_merged` wrote.
        edits: Its edits; this and the rest are the arguments of that function.
        backbone: See there.
        revision: See there.
        trust: See there.

    Returns:
        The difference; NaN or infinite where one of the outputs is.
    """
    folder = find_edits(edits, revision)
    # weights of the backbone that were trained are in their own dtype, which is compared with the rounded one
    own = method_class(read_record(folder), folder, trust).weights == "float32"
    edited = load(folder, backbone, None, BackboneOptions(dtype=None if own else merged.dtype), trust=trust)
    inputs = edited.tokenizer(PROBE, return_tensors="pt")
    plain_config = transformers.AutoConfig.from_pretrained(merged.folder)
    limit = position_limit(plain_config)
    inputs = {name: inputs[name][:, :limit] for name in ("input_ids", "attention_mask")}
    head, ours = edited.head, _outputs(edited.backbone, edited.head, edited.record, inputs)
    record = edited.record
    del edited
    with silence():
        plain = getattr(transformers, merged.auto).from_pretrained(merged.folder, dtype=getattr(torch, merged.dtype))
    apart = head if merged.auto == "AutoModel" else None
    theirs = _outputs(plain.eval(), apart, record, inputs)
    of: Literal["logit", "hidden state"] = "logit" if head is not None or merged.auto != "AutoModel" else "hidden state"
    return Difference((ours - theirs).abs().max().item(), ours.abs().max().item(), of)


@torch.inference_mode()
def _outputs(model: Any, head: ClassificationHead | None, record: dict[str, Any], inputs: dict[str, Tensor]) -> Tensor:
    extra = {"decoder_input_ids": inputs["input_ids"]} if model.config.is_encoder_decoder else {}
    output = model(**inputs, **extra)
    if head is not None:
        return head(pool(output, inputs["attention_mask"], record["head"]["pooling"]))
    return output[0].float()
