"""How long a text a backbone can read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.families.positions import position_limit
from tests.backbones_zoo import build


def test_positions(gpt2_folder: Path, t5_folder: Path, llama_folder: Path) -> None:
    limits = [
        position_limit(find(str(folder), BackboneOptions()).config) for folder in (gpt2_folder, llama_folder, t5_folder)
    ]
    assert limits == [256, 256, None]


@pytest.mark.parametrize("family", ["roberta", "xlm_roberta", "opt"])
def test_positions_that_begin_after_the_padding_are_fewer(family: str) -> None:
    model = build(family)
    limit = position_limit(model.config)
    assert limit == 64  # of 66 rows (OPT's config leaves out the first two)
    model(torch.full((1, limit), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, limit + 1), 7))


def test_relative_positions_have_no_limit() -> None:
    model: Any = build("deberta")
    assert position_limit(model.config) is None
    assert model(torch.full((1, 200), 7))[0].isfinite().all()  # max_position_embeddings is 64
    model.config.position_biased_input = True
    assert position_limit(model.config) == 64
