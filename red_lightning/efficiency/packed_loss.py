"""Loss of packed sequences: in one pass without padding, or separately if the model would mix them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.verification import verified

FEW = 10
"""Tokens of each sequence that are compared."""


def packed_losses(
    backbone: Any, labels: Tensor, input_ids: Tensor, position_ids: Tensor, places: Tensor | None = None, **options: Any
) -> Tensor:
    """Return the cross-entropy of each label of packed sequences.

    Args:
        backbone: A decoder.
        labels: int64, shape (1, tokens), negative where nothing is learned.
        input_ids: int64, of that shape.
        position_ids: int64, of that shape; 0 where a sequence begins.
        places: Row and column of each label: int64, shape (2, labels).
        **options: Passed to :func:`~red_lightning.efficiency.loss_head.label_losses`.

    Returns:
        In nats, 0 where there is no label: float32, of the labels' shape.
    """

    def few() -> list[Tensor]:
        sequences = [ids[:FEW] for ids in _sequences(input_ids, position_ids)[:2]]
        return [sequences[0], sequences[-1][: FEW - 3]]

    def packed() -> Tensor:
        sequences = few()
        positions = torch.cat([torch.arange(len(ids), device=ids.device) for ids in sequences])
        logits: Tensor = backbone(
            input_ids=torch.cat(sequences)[None], position_ids=positions[None], use_cache=False
        ).logits
        return logits[0]

    def apart() -> Tensor:
        return torch.cat([backbone(input_ids=ids[None], use_cache=False).logits[0] for ids in few()])

    if verified("packed sequences", backbone, packed, apart):
        inputs: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids}
        return label_losses(backbone, labels, places=places, use_cache=False, **inputs, **options)
    ids, known = (_sequences(values, position_ids) for values in (input_ids, labels))
    return torch.cat(losses_apart(backbone, ids, known, **options))[None]


def losses_apart(backbone: Any, ids: Sequence[Tensor], labels: Sequence[Tensor], **options: Any) -> list[Tensor]:
    """Return the cross-entropy of each label of sequences, with a padded row for each: the plain way.

    Args:
        backbone: A decoder.
        ids: int64, each of shape (tokens,).
        labels: Of the same shapes.
        **options: Passed to :func:`~red_lightning.efficiency.loss_head.label_losses`.

    Returns:
        float32, of the same shapes.
    """
    mask = pad_sequence([torch.ones_like(own) for own in ids], batch_first=True)
    known = pad_sequence([*labels], batch_first=True, padding_value=-1)
    inputs: dict[str, Any] = {"input_ids": pad_sequence([*ids], batch_first=True), "attention_mask": mask}
    losses = label_losses(backbone, known, use_cache=False, **inputs, **options)
    return [own[: len(sequence)] for own, sequence in zip(losses, ids, strict=True)]


def _sequences(values: Tensor, position_ids: Tensor) -> list[Tensor]:
    """The values of each sequence of a packed row."""
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    return list(values[0].tensor_split(starts[1:]))
