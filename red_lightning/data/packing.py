"""Collate examples for the loss: padded, or packed into one sequence without padding.

transformers reads the bounds of packed examples from positions that start again at 0, and lets no token attend across
them (where no attention mask is given).
"""

import heapq
from collections.abc import Sequence
from typing import Any

import torch

from red_lightning.data.collation import IGNORED, Batch, label_places, pad


def balanced(lengths: Sequence[int], bins: int) -> list[list[int]]:
    """Divide rows among bins so that each has about as many tokens: the longest first, each to the emptiest bin.

    Args:
        lengths: Tokens of each row.
        bins: Number of bins.

    Returns:
        The row numbers of each bin, ascending. A bin is empty only if there are fewer rows than bins. The same lengths
        always give the same bins.
    """
    divided: list[list[int]] = [[] for _ in range(bins)]
    emptiest = [(0, 0, number) for number in range(bins)]  # tokens, rows, bin
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        tokens, rows, number = emptiest[0]
        divided[number].append(row)
        heapq.heapreplace(emptiest, (tokens + lengths[row], rows + 1, number))
    return [sorted(rows) for rows in divided]


def labels(row: dict[str, Any]) -> list[int]:
    """What each token of an example should be predicted to be.

    Args:
        row: ``tokens`` and ``learned``, the token spans (start, end) that are learned. A ``filler`` learns nothing.

    Returns:
        The token where it is learned, :data:`IGNORED` elsewhere, and always at the first, which nothing precedes.
    """
    tokens = row["tokens"]
    known = [IGNORED] * len(tokens)
    for start, end in [] if row.get("filler") else row["learned"]:
        known[start:end] = tokens[start:end]
    return [IGNORED, *known[1:]]


def collate_padded(rows: Sequence[dict[str, Any]], pad_id: int) -> Batch:
    """A batch with one example a row.

    Args:
        rows: Examples, as :func:`labels` reads them, each with its ``row`` number.
        pad_id: The padding token; padding is always masked.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each int64 of shape (rows, tokens), padded on the right, the
        :func:`~red_lightning.data.collation.label_places`, and the list ``row``.
    """
    known = pad([labels(row) for row in rows], IGNORED)
    return {
        "input_ids": pad([row["tokens"] for row in rows], pad_id),
        "attention_mask": pad([[1] * len(row["tokens"]) for row in rows], 0),
        "labels": known,
        "label_places": label_places(known),
        "row": [row["row"] for row in rows],
    }


def collate_packed(rows: Sequence[dict[str, Any]]) -> Batch:
    """One packed row of several examples.

    Args:
        rows: Examples, as :func:`labels` reads them, each with its ``row`` number.

    Returns:
        ``input_ids``, ``position_ids`` (from 0 in each example) and ``labels``, each int64 of shape (1, tokens), the
        :func:`~red_lightning.data.collation.label_places`, and the list ``row``. There is no attention mask: nothing
        is padded.
    """
    known = torch.tensor([[label for row in rows for label in labels(row)]])
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row["tokens"]]]),
        "position_ids": torch.tensor([[position for row in rows for position in range(len(row["tokens"]))]]),
        "labels": known,
        "label_places": label_places(known),
        "row": [row["row"] for row in rows],
    }
