"""Padding, labels and layout of batches."""

from typing import Any

import pytest
import torch

from red_lightning.data.collation import IGNORED, collate_for_decoding, collate_for_loss, pad

PAD = 1
ROWS: list[dict[str, Any]] = [
    {"row": 0, "source": [7, 8, 0], "target": [9, 0]},
    {"row": 3, "source": [5, 0], "target": [6, 4, 3, 0]},
]


def test_pad_to_either_side() -> None:
    assert pad([[3], [4, 5]], PAD).tolist() == [[3, PAD], [4, 5]]
    assert pad([[3], [4, 5]], PAD, "left").tolist() == [[PAD, 3], [4, 5]]
    assert pad([[3]], PAD).dtype == torch.int64


def test_a_decoder_reads_source_and_target_and_learns_the_target_only() -> None:
    batch = collate_for_loss(ROWS, PAD, encoder_decoder=False)
    assert batch["input_ids"].tolist() == [[7, 8, 0, 9, 0, PAD], [5, 0, 6, 4, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert batch["labels"].tolist() == [[IGNORED] * 3 + [9, 0, IGNORED], [IGNORED] * 2 + [6, 4, 3, 0]]
    assert batch["row"] == [0, 3]


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_a_filler_has_no_labels(encoder_decoder: bool) -> None:
    filled = collate_for_loss([ROWS[0], {**ROWS[1], "filler": True, "row": -1}], PAD, encoder_decoder)
    whole = collate_for_loss(ROWS, PAD, encoder_decoder)
    assert torch.equal(filled["input_ids"], whole["input_ids"])
    assert torch.equal(filled["labels"][0], whole["labels"][0])
    assert (filled["labels"][1] == IGNORED).all()
    assert filled["row"] == [0, -1]


def test_an_encoder_decoder_reads_the_source_and_learns_the_target() -> None:
    batch = collate_for_loss(ROWS, PAD, encoder_decoder=True)
    assert batch["input_ids"].tolist() == [[7, 8, 0], [5, 0, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[9, 0, IGNORED, IGNORED], [6, 4, 3, 0]]


@pytest.mark.parametrize("pad_id", [0, 1])
def test_an_eos_that_pads_too_is_learned_where_it_ends_a_text(pad_id: int) -> None:
    for encoder_decoder in (False, True):
        batch = collate_for_loss(ROWS, pad_id, encoder_decoder)
        assert (batch["labels"] == 0).sum() == 2
        assert batch["attention_mask"].sum() == (5 if encoder_decoder else 11)


def test_places_are_rows_and_columns_of_labels() -> None:
    decoder, encoder = (
        collate_for_loss(ROWS, PAD, encoder_decoder)["label_places"] for encoder_decoder in (False, True)
    )
    assert decoder.tolist() == [[0, 0, 1, 1, 1, 1], [3, 4, 2, 3, 4, 5]]
    assert encoder.tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 2, 3]]
    filler = collate_for_loss([{**ROWS[0], "filler": True}], PAD, encoder_decoder=False)["label_places"]
    assert filler.shape == (2, 0) and filler.dtype == torch.int64


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_decoding_pads_where_nothing_follows(encoder_decoder: bool) -> None:
    rows = [{**row, "row": 4 + i, "text": f"t{i}", "references": ["r"] * i} for i, row in enumerate(ROWS)]
    batch = collate_for_decoding(rows, PAD, encoder_decoder)
    assert batch["input_ids"].tolist() == [[7, 8, 0], [5, 0, PAD] if encoder_decoder else [PAD, 5, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0] if encoder_decoder else [0, 1, 1]]
    assert (batch["row"], batch["text"], batch["references"]) == ([4, 5], ["t0", "t1"], [[], ["r"]])
