"""Rows divided by length, and batches of them: every number here can be checked by hand."""

from array import array
from itertools import product

import pytest
import torch

from red_lightning.data.collation import IGNORED
from red_lightning.data.packing import balanced, collate_packed, collate_padded, labels

ROWS = [
    {"row": 7, "tokens": array("i", [5, 6, 7, 8]), "learned": [(2, 4)]},
    {"row": 3, "tokens": array("i", [9, 10]), "learned": [(1, 2)]},
    {"row": 4, "tokens": array("i", [1, 2, 3, 4, 5, 6]), "learned": [(1, 2), (4, 6)]},
]


def test_balanced_by_hand() -> None:
    assert balanced([7, 6, 5, 4, 3, 2], 3) == [[0, 5], [1, 4], [2, 3]]
    assert balanced([2, 3, 4, 5, 6, 7], 3) == [[0, 5], [1, 4], [2, 3]]
    assert balanced([4, 4, 4], 3) == [[0], [1], [2]]
    assert balanced([9], 1) == [[0]]
    assert balanced([3, 8], 4) == [[1], [0], [], []]
    assert balanced([], 2) == [[], []]


@pytest.mark.parametrize("seed", range(20))
def test_balanced_holds_every_row_once_and_is_near_the_best(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 20, (7,), generator=generator).tolist()
    bins = 2 + seed % 2
    divided = balanced(lengths, bins)
    assert sorted(row for rows in divided for row in rows) == list(range(7))
    assert all(rows and rows == sorted(rows) for rows in divided)
    assert divided == balanced(lengths, bins)
    best = min(
        max(sum(length for length, place in zip(lengths, places, strict=True) if place == b) for b in range(bins))
        for places in product(range(bins), repeat=7)
    )
    assert max(sum(lengths[row] for row in rows) for rows in divided) <= (4 / 3 - 1 / (3 * bins)) * best  # Graham 1969


def test_rows_without_length_still_fill_all_bins() -> None:
    assert [len(rows) for rows in balanced([0] * 6, 3)] == [2, 2, 2]


def test_labels_are_the_learned_tokens_and_never_the_first() -> None:
    assert labels(ROWS[2]) == [IGNORED, 2, IGNORED, IGNORED, 5, 6]
    assert labels({**ROWS[1], "learned": [(0, 2)]}) == [IGNORED, 10]
    assert labels({**ROWS[2], "filler": True}) == [IGNORED] * 6


def test_packed_examples_follow_one_another_with_positions_of_their_own() -> None:
    batch = collate_packed(ROWS)
    assert set(batch) == {"input_ids", "position_ids", "labels", "label_places", "row"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]]
    x = IGNORED
    assert batch["labels"].tolist() == [[x, x, 7, 8, x, 10, x, 2, x, x, 5, 6]]
    assert batch["row"] == [7, 3, 4]
    assert {value.dtype for name, value in batch.items() if name != "row"} == {torch.int64}


def test_padded_and_packed_batches_hold_the_same_examples() -> None:
    packed, padded = collate_packed(ROWS), collate_padded(ROWS, pad_id=99)
    assert padded["input_ids"].shape == padded["labels"].shape == (3, 6)
    real = padded["attention_mask"].bool()
    assert torch.equal(padded["input_ids"][real], packed["input_ids"][0])
    assert torch.equal(padded["labels"][real], packed["labels"][0])
    assert (padded["input_ids"][~real] == 99).all() and (padded["labels"][~real] == IGNORED).all()
    assert padded["attention_mask"][1].tolist() == [1, 1, 0, 0, 0, 0]  # on the right
    assert padded["row"] == packed["row"]
