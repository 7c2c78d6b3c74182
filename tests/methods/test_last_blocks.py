"""The last blocks: they train, and nothing else does."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning.errors import UsageError
from red_lightning.methods import LastBlocks
from tests.backbones_zoo import build
from tests.methods.guarantees import check, output, size
from tests.methods.real_sizes import on_meta

PREFIXES = {
    "roberta": "encoder.layer.{}.",
    "gpt2": "transformer.h.{}.",
    "t5": "decoder.block.{}.",
    "llama": "model.layers.{}.",
    "distilbert": "transformer.layer.{}.",
}


@pytest.mark.parametrize("family", PREFIXES)
def test_the_last_blocks_train_whole(family: str) -> None:
    model = build(family, layers=3)
    chosen = tuple(PREFIXES[family].format(layer) for layer in (1, 2))
    learned = LastBlocks(2).apply(model)
    assert list(learned) == [name for name, _ in model.named_parameters() if name.startswith(chosen)]
    assert all(parameter.requires_grad == (name in learned) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "llama"])
def test_guarantees(family: str, tmp_path: Path) -> None:
    check(LastBlocks(1), family, tmp_path, in_place=True)


def test_weights_in_16_bits_are_refused() -> None:
    model = build("gpt2").bfloat16()
    with pytest.raises(UsageError, match=r"lose small steps; give model\.backbone_options\.dtype float32"):
        LastBlocks().apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("family", "blocks", "has"), [("gpt2", 3, 2), ("t5", 3, 2), ("albert", 2, 1)])
def test_more_blocks_than_there_are_get_one_sentence(family: str, blocks: int, has: int) -> None:
    model = build(family)
    sentence = f"^model.method.blocks is {blocks}, but the backbone has {has} to choose from$"
    with pytest.raises(UsageError, match=sentence):
        LastBlocks(blocks).apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="blocks is 0, but must be at least 1"):
        LastBlocks(0)


def test_they_cannot_be_detached_and_are_folded_already() -> None:
    model = build("gpt2")
    method = LastBlocks()
    method.apply(model)
    with pytest.raises(UsageError, match="LastBlocks cannot be detached"):
        method.detach(model)
    plain = output(model)
    method.fold(model)
    assert torch.equal(output(model), plain)


def test_count_of_the_paper() -> None:
    width = 1024
    block = 12 * width**2 + 13 * width  # attention 4 w^2 + 4 w, FFN 8 w^2 + 5 w, two norms 4 w
    learned = LastBlocks(2).apply(on_meta("gpt2-medium", AutoModelForCausalLM))
    assert size(learned) == 2 * block == 25_192_448  # Table 2: 25.2M
