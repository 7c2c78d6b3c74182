"""Batch rows with the same source together, and collate them with the source stored once."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from red_lightning.data.collation import IGNORED, Batch, collate_for_loss, label_places, pad
from red_lightning.data.packing import balanced

AS_COSTLY = 4096
"""Tokens of a row at which attention among all of them costs as much as the rest of a block (6 times its width)."""


def whole_groups(groups: Sequence[Hashable], size: int, generator: torch.Generator) -> list[int]:
    """An order in which each ``size`` rows, a batch, are of as few groups as can be had at little cost.

    Groups larger than a batch are cut into whole ones. What is left is put together largest first, each with the
    largest that still fits, and is cut only if nothing fits. The batches come in random order.

    Args:
        groups: What each row belongs to.
        size: Rows of a batch; the last one, which stays last, may have fewer.
        generator: Draws the order.

    Returns:
        Every row number once.
    """
    members: dict[Hashable, list[int]] = {}
    for row in torch.randperm(len(groups), generator=generator).tolist():
        members.setdefault(groups[row], []).append(row)
    batches: list[list[int]] = []
    waiting: dict[int, list[list[int]]] = {length: [] for length in range(1, size + 1)}
    for rows in members.values():
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            waiting[len(part)].append(part)
    while left := [length for length, parts in waiting.items() if parts]:
        batch: list[int] = []
        while left and len(batch) < size:
            room = size - len(batch)
            length = max((length for length in left if length <= room), default=left[0])
            part = waiting[length].pop()
            batch += part[:room]
            if part[room:]:
                waiting[length - room].append(part[room:])
            left = [length for length, parts in waiting.items() if parts]
        batches.append(batch)
    last = batches.pop() if len(batches[-1]) < size else []
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [row for batch in shuffled for row in batches[batch]] + last


def collate_shared(rows: Sequence[dict[str, Any]], pad_id: int) -> Batch:
    """Packed rows, in which each source stands once before all of its targets.

    A target sees its source and itself, and its positions go on from its source: it is what it is in a row of its own.

    Args:
        rows: Dictionaries as :func:`~red_lightning.data.collation.collate_for_loss` reads them.
        pad_id: The padding token.

    Returns:
        Each int64 of shape (packed rows, tokens): ``input_ids``; ``position_ids``; ``labels`` (:data:`IGNORED` at
        sources and padding); ``predictors``, the column whose hidden state predicts each label, that is, of the first
        token of a target the source's last; ``sources``, the number of the source that a token belongs to (0 at
        padding, which sees padding); ``targets``, the number of the target, 0 in a source. Also the
        :func:`~red_lightning.data.collation.label_places`, and the list ``row``.
    """
    groups: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["source"]), []).append(row)
    lengths = [len(source) + sum(len(row["target"]) for row in own) for source, own in groups.items()]
    packed = _divided(lengths)
    numbered = list(groups.items())
    filled = [_packed([numbered[number] for number in numbers]) for numbers in packed]
    padding = {"input_ids": pad_id, "labels": IGNORED}
    padded = {name: pad([columns[name] for columns in filled], padding.get(name, 0)) for name in filled[0]}
    return {
        **padded,
        "label_places": label_places(padded["labels"]),
        "row": [row["row"] for numbers in packed for number in numbers for row in numbered[number][1]],
    }


def collate_encoded_once(rows: Sequence[dict[str, Any]], pad_id: int) -> Batch:
    """A batch for an encoder-decoder, with which of its rows have one source.

    Args:
        rows: Dictionaries as :func:`~red_lightning.data.collation.collate_for_loss` reads them.
        pad_id: The padding token.

    Returns:
        What that returns, and ``distinct``, a row of each source (int64, shape (sources,)), and ``source_of``, the
        number of each row's source among them (int64, shape (rows,)).
    """
    numbers: dict[tuple[int, ...], int] = {}
    source_of = [numbers.setdefault(tuple(row["source"]), len(numbers)) for row in rows]
    distinct = [source_of.index(number) for number in range(len(numbers))]
    batch = collate_for_loss(rows, pad_id, encoder_decoder=True)
    return {**batch, "distinct": torch.tensor(distinct), "source_of": torch.tensor(source_of)}


def _divided(lengths: Sequence[int]) -> list[list[int]]:
    """Which sources share a packed row, so that padding and the attention of long rows cost least together."""

    def cost(rows: list[list[int]]) -> float:
        longest = max(sum(lengths[number] for number in numbers) for numbers in rows)
        return len(rows) * longest * (1 + longest / AS_COSTLY)

    most = sum(lengths) // max(lengths)
    return min((balanced(lengths, rows) for rows in range(1, most + 1)), key=cost)


def _packed(groups: Sequence[tuple[tuple[int, ...], list[dict[str, Any]]]]) -> dict[str, list[int]]:
    """The columns of one packed row of sources and their rows."""
    names = ("input_ids", "position_ids", "labels", "predictors", "sources", "targets")
    columns: dict[str, list[int]] = {name: [] for name in names}

    def append(**values: Sequence[int]) -> None:
        for name, own in values.items():
            columns[name] += own

    for number, (source, rows) in enumerate(groups, start=1):
        length = len(source)
        append(
            input_ids=source,
            position_ids=range(length),
            labels=[IGNORED] * length,
            predictors=[0] * length,
            sources=[number] * length,
            targets=[0] * length,
        )
        end = len(columns["input_ids"]) - 1
        for place, row in enumerate(rows, start=1):
            target, first = row["target"], len(columns["input_ids"])
            append(
                input_ids=target,
                position_ids=range(length, length + len(target)),
                labels=[IGNORED] * len(target) if row.get("filler") else target,
                predictors=[end, *range(first, first + len(target) - 1)],
                sources=[number] * len(target),
                targets=[place] * len(target),
            )
    return columns
