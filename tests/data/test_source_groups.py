"""Batches of whole groups, and packed rows in which a source stands once: numbers that can be checked by hand."""

import random
from typing import Any

import pytest
import torch

from red_lightning.data import source_groups
from red_lightning.data.collation import IGNORED
from red_lightning.data.resumable_loader import EpochBatches
from red_lightning.data.source_groups import collate_encoded_once, collate_shared, whole_groups

ROWS: list[dict[str, Any]] = [
    {"row": 0, "source": [7, 8], "target": [9, 0]},
    {"row": 3, "source": [5], "target": [6, 0]},
    {"row": 4, "source": [7, 8], "target": [4]},
    {"row": -1, "source": [5], "target": [3], "filler": True},
]
X = IGNORED


def test_targets_follow_their_source() -> None:
    batch = collate_shared(ROWS, pad_id=1)
    assert batch["row"] == [0, 4, 3, -1]
    assert batch["input_ids"].tolist() == [[7, 8, 9, 0, 4, 5, 6, 0, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 2, 1]]
    assert batch["labels"].tolist() == [[X, X, 9, 0, 4, X, 6, 0, X]]
    assert batch["predictors"].tolist() == [[0, 0, 1, 2, 1, 0, 5, 6, 5]]
    assert batch["label_places"].tolist() == [[0] * 5, [2, 3, 4, 6, 7]]
    assert batch["sources"].tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 2]]
    assert batch["targets"].tolist() == [[0, 0, 1, 1, 2, 0, 1, 1, 2]]


def test_long_rows_are_divided_between_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_groups, "AS_COSTLY", 1)
    batch = collate_shared([*ROWS[1:], {"row": 5, "source": [2], "target": [3, 3]}], pad_id=1)
    # the first source has 4 tokens, the others 3 each; two rows of at least 4 tokens
    assert sorted(batch["input_ids"].tolist()) == [[5, 6, 0, 3, 1, 1], [7, 8, 4, 2, 3, 3]]
    assert (batch["sources"] == 0).sum() == (batch["input_ids"] == 1).sum()
    assert not (batch["labels"] >= 0)[batch["sources"] == 0].any()


def test_an_encoder_gets_each_source_once() -> None:
    batch = collate_encoded_once(ROWS, pad_id=1)
    assert batch["distinct"].tolist() == [0, 1]
    assert batch["source_of"].tolist() == [0, 1, 0, 1]
    assert batch["row"] == [0, 3, 4, -1]


def e2e_like(rows: int) -> list[int]:
    """Groups of sizes as E2E has them."""
    draw, groups, number = random.Random(1), [], 0
    while len(groups) < rows:
        groups += [number] * draw.choice([4, 6, 6, 6, 7, 9, 11, 11, 13, 16, 40])
        number += 1
    groups = groups[:rows]
    draw.shuffle(groups)
    return groups


def readings(order: list[int], groups: list[int], size: int) -> int:
    """How often a source is read if each batch reads its own once."""
    batches = (order[first : first + size] for first in range(0, len(order), size))
    return sum(len({groups[row] for row in batch}) for batch in batches)


@pytest.mark.parametrize("size", [1, 3, 10, 64, 5000])
def test_batches_are_of_few_groups(size: int) -> None:
    groups = e2e_like(2003)
    order = whole_groups(groups, size, torch.Generator().manual_seed(1))
    assert sorted(order) == list(range(2003))
    assert order == whole_groups(groups, size, torch.Generator().manual_seed(1))
    assert size == 5000 or order != whole_groups(groups, size, torch.Generator().manual_seed(2))
    distinct = len(set(groups))
    least = max(distinct, -(-2003 // size))
    cut = sum(-(-groups.count(group) // size) for group in set(groups))  # whole groups, but for those above the size
    found = readings(order, groups, size)
    assert least <= found <= 1.1 * cut
    together = sorted(range(2003), key=groups.__getitem__)
    assert found <= readings(together, groups, size)


def batches_of(world: int = 1, micro: int | None = None, epoch: int = 0, rank: int = 0) -> EpochBatches:
    groups = e2e_like(203)
    batches = EpochBatches(203, 12, 5, rank, world, micro_batch_size=micro, weights=[1] * 203, groups=groups)
    batches.set_epoch(epoch)
    return batches


@pytest.mark.parametrize(("world", "micro"), [(1, None), (3, None), (1, 4), (2, 3), (3, 1), (4, 1), (12, 1)])
def test_groups_stay_together_however_a_step_is_divided(world: int, micro: int | None) -> None:
    alone = batches_of()
    ranks = [list(batches_of(world, micro, rank=rank)) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(row for rank in ranks for batch in rank for row in batch if row >= 0) == list(range(203))
    for step in range(len(alone)):
        parts = [part for micro_batch in batches_of(world, micro).micro_batches(step) for part in micro_batch]
        assert [row for part in parts for row in part] == alone.order()[
            step * 12 : (step + 1) * 12
        ]  # one after another
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert all(micro_batch[0] for micro_batch in batches_of(world, micro).micro_batches(step))
    assert alone.step_weight(0, 1e9) == 12


def test_each_epoch_brings_other_rows_together() -> None:
    first, second = ({frozenset(batch) for batch in batches_of(epoch=epoch)} for epoch in (0, 1))
    assert len(first & second) < len(first) / 2
