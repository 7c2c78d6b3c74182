"""Predictions paired with their references, as rows and as bytes."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from red_lightning.errors import UsageError

Row = tuple[str, tuple[str, ...]]


def to_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Row]:
    """Pair every prediction with its references.

    Args:
        predictions: One text per input.
        references: One group of at least one text per input.

    Returns:
        The pairs, in the order given.

    Raises:
        UsageError: The counts differ, a group is empty, or a text is not a string.
    """
    if isinstance(predictions, str) or len(predictions) != len(references):
        given = "one string" if isinstance(predictions, str) else f"{len(predictions)} predictions"
        raise UsageError(
            f"Scores need one prediction per group of references, got {given} for {len(references)} groups"
        )
    for index, (prediction, group) in enumerate(zip(predictions, references, strict=True)):
        if isinstance(group, str):
            raise UsageError(f"The references of row {index} are one string; give a list of strings, [{group!r}]")
        if not group:
            raise UsageError(f"Row {index} has no reference; give at least one or leave the row out")
        if not all(isinstance(text, str) for text in (prediction, *group)):
            raise UsageError(f"Row {index} holds something that is not text; decode tokens to strings before scoring")
    return [(prediction, tuple(group)) for prediction, group in zip(predictions, references, strict=True)]


def pack(rows: Sequence[Row]) -> Tensor:
    """Write rows as bytes, one line of JSON each, so that processes can gather them.

    Args:
        rows: The pairs of prediction and references.

    Returns:
        uint8, shape (bytes,); shape (0,) for no rows.
    """
    # ASCII escapes keep lone surrogates, which a byte-level decoder can emit, out of the encoder's way
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


def unpack(packed: Tensor) -> list[Row]:
    """Read rows back, sorted by content, so that float sums do not depend on which process held which row.

    Args:
        packed: uint8, shape (bytes,): what `pack` wrote, any number of them one after the other.

    Returns:
        The pairs in sorted order.
    """
    lines = bytes(packed.cpu().numpy()).decode("ascii").splitlines()
    return sorted((prediction, tuple(group)) for prediction, group in map(json.loads, lines))
