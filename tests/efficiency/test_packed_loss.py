"""Texts packed into one row give each the loss and the gradients that it gives alone, or the family says that not."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig

from red_lightning import RED
from red_lightning.families import ARCHITECTURES, can_pack
from tests.backbones_zoo import FAMILIES, MASKED, VOCABULARY, build
from tests.families.decoder_zoo import VARIANTS

DECODERS = [family for family in FAMILIES if family not in MASKED and family != "t5"]
LENGTHS = (5, 13, 1, 9)  # longer than the sliding window, and a single token


def edited(family: str, attention: str) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A model in training mode, without dropout, and its random vectors."""
    model: Any = build(family, dropout=0.0)
    if attention == "sdpa" and not _dispatches_sdpa(model):
        pytest.skip(f"transformers has no sdpa for {family}")
    model.set_attn_implementation(attention)
    vectors = RED(["ffn", "attention"]).apply(model)
    generator = torch.Generator().manual_seed(0)
    for vector in vectors.values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    return model.train(), vectors


def _dispatches_sdpa(model: Any) -> bool:
    """Whether transformers lets the family use sdpa (Gemma 2, whose scores are capped, only in old versions)."""
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        return False
    return True


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def loss_and_gradients(
    logits: Sequence[Tensor], vectors: dict[str, nn.Parameter]
) -> tuple[float, dict[str, Tensor | None]]:
    """Of the sum of the next-token losses of all texts, given the logits of each."""
    pairs = zip(logits, texts(), strict=True)
    loss = sum(cross_entropy(own[:-1], text[1:], reduction="sum") for own, text in pairs)
    assert isinstance(loss, Tensor)
    gradients = torch.autograd.grad(loss, list(vectors.values()))
    return loss.item(), dict(zip(vectors, gradients, strict=True))


def packed(model: nn.Module, **options: Any) -> Sequence[Tensor]:
    ids = torch.cat(texts())[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return model(input_ids=ids, position_ids=positions, use_cache=False, **options).logits[0].split(LENGTHS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", DECODERS)
def test_packed_texts_are_what_they_are_apart(family: str, attention: str) -> None:
    model, vectors = edited(family, attention)
    alone = [model(input_ids=text[None], use_cache=False).logits[0] for text in texts()]
    expected, gradients = loss_and_gradients(alone, vectors)

    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.nn.utils.rnn.pad_sequence(texts(), batch_first=True, padding_value=1)
    padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    loss, found = loss_and_gradients([row[:length] for row, length in zip(padded, LENGTHS, strict=True)], vectors)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-5)

    loss, found = loss_and_gradients(packed(model), vectors)
    if can_pack(model.config):
        assert loss == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-5)
    else:  # they see each other
        assert loss != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_every_family_computes_the_logits_of_given_positions(family: str) -> None:
    model: Any = build(family)
    ids, kept = torch.stack([texts()[1], texts()[1].flip(0)]), torch.tensor([0, 3, 4, 11])
    full = model(input_ids=ids, use_cache=False).logits
    some = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    torch.testing.assert_close(some, full[:, kept], rtol=1e-5, atol=1e-6)


def test_what_packs() -> None:
    """Decoders only, each of which the first test compares, or that of ``tests/families/test_decoders.py``."""
    compared = {build(family).config.model_type for family in DECODERS if family != "opt"}
    compared |= {model_type for model_type, _ in VARIANTS.values()}
    assert {name for record in ARCHITECTURES if record.packs for name in record.model_types} <= compared
    assert not can_pack(AutoConfig.for_model("opt"))
    assert not can_pack(AutoConfig.for_model("bloom"))
