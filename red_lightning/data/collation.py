"""Pad token lists to batches."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

IGNORED = -100
"""The label that the loss skips."""

Batch = dict[str, Any]


def pad(rows: Sequence[Sequence[int]], value: int, side: Literal["left", "right"] = "right") -> Tensor:
    """Stack token lists of different lengths.

    Args:
        rows: Token lists.
        value: What fills the gaps.
        side: Where the gaps are.

    Returns:
        int64, shape (rows, longest).
    """
    longest = max(len(row) for row in rows)
    gaps = [[value] * (longest - len(row)) for row in rows]
    lists = [[*gap, *row] if side == "left" else [*row, *gap] for gap, row in zip(gaps, rows, strict=True)]
    return torch.tensor(lists, dtype=torch.int64)


def label_places(labels: Tensor) -> Tensor:
    """Where the labels are: found here, because a processor that asks a GPU for them has to wait for it.

    Args:
        labels: Negative where there is none: int64, shape (rows, tokens).

    Returns:
        Row and column of each: int64, shape (2, labels).
    """
    return (labels >= 0).nonzero().T.contiguous()


def collate_for_loss(rows: Sequence[dict[str, Any]], pad_id: int, encoder_decoder: bool) -> Batch:
    """A batch for the loss on the reference only.

    Args:
        rows: Dictionaries with the token lists ``source`` and ``target``, and ``row`` (number). A ``filler`` has no
            labels.
        pad_id: The padding token; padding is always masked.
        encoder_decoder: Give source and target apart rather than as one sequence.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` (:data:`IGNORED` at the source and at padding), each int64 of
        shape (rows, tokens), the :func:`label_places`, and the list ``row``.
    """
    sources = [row["source"] for row in rows]
    targets = [row["target"] for row in rows]
    if encoder_decoder:
        inputs, labels = sources, targets
    else:
        inputs = [[*source, *target] for source, target in zip(sources, targets, strict=True)]
        labels = [[IGNORED] * len(s) + [*t] for s, t in zip(sources, targets, strict=True)]
    labels = [[IGNORED] * len(known) if row.get("filler") else known for row, known in zip(rows, labels, strict=True)]
    padded = pad(labels, IGNORED)
    return {
        "input_ids": pad(inputs, pad_id),
        "attention_mask": pad([[1] * len(row) for row in inputs], 0),
        "labels": padded,
        "label_places": label_places(padded),
        "row": [row["row"] for row in rows],
    }


def collate_for_decoding(rows: Sequence[dict[str, Any]], pad_id: int, encoder_decoder: bool) -> Batch:
    """A batch of inputs to decode: left-padded for a decoder, so that every row continues at the last column.

    Args:
        rows: Dictionaries with ``row`` (number), ``source`` (token list), ``text`` and ``references``.
        pad_id: The padding token; padding is always masked.
        encoder_decoder: Pad on the right, as encoders expect.

    Returns:
        ``input_ids`` and ``attention_mask`` (int64, shape (rows, tokens)), and the lists ``row``, ``text`` and
        ``references``.
    """
    side: Literal["left", "right"] = "right" if encoder_decoder else "left"
    sources = [row["source"] for row in rows]
    return {
        "input_ids": pad(sources, pad_id, side),
        "attention_mask": pad([[1] * len(source) for source in sources], 0, side),
        "row": [row["row"] for row in rows],
        "text": [row["text"] for row in rows],
        "references": [row["references"] for row in rows],
    }
