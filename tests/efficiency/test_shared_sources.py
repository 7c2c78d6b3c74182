"""Targets that share their source have the losses and the gradients that they have in rows of their own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from red_lightning import RED
from red_lightning.data import source_groups
from red_lightning.data.collation import collate_for_loss
from red_lightning.data.source_groups import collate_encoded_once, collate_shared
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.shared_sources import can_share, encoded_once, shared_mask
from red_lightning.methods import PromptTuning
from tests.backbones_zoo import FAMILIES, MASKED, VOCABULARY, build

SHARING = [family for family in FAMILIES if family not in (*MASKED, "opt", "t5")]
PAD = 1


def rows() -> list[dict[str, Any]]:
    """Seven rows of three sources, in mixed order, one of them a filler."""
    generator = torch.Generator().manual_seed(3)

    def text(length: int) -> list[int]:
        return torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()

    sources = [text(9), text(5), text(15)]
    lengths = [(0, 4), (1, 7), (0, 1), (2, 6), (0, 11), (1, 2), (0, 3)]
    made = [{"row": n, "source": sources[s], "target": text(length)} for n, (s, length) in enumerate(lengths)]
    return [*made[:-1], {**made[-1], "filler": True, "row": -1}]


def edited(family: str, method: Any = None) -> tuple[Any, list[nn.Parameter]]:
    model: Any = build(family, dropout=0.0)
    vectors = list((method or RED(["ffn", "attention"])).apply(model).values())
    generator = torch.Generator().manual_seed(0)
    for vector in vectors:
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    return model.train(), vectors


def loss_and_gradients(losses: Tensor, vectors: list[nn.Parameter]) -> tuple[float, tuple[Tensor, ...]]:
    return losses.sum().item(), torch.autograd.grad(losses.sum(), vectors)


def assert_equal(found: tuple[float, Any], expected: tuple[float, Any]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    for own, other in zip(found[1], expected[1], strict=True):
        assert (own - other).norm() <= 3e-6 * other.norm()


@pytest.mark.parametrize("packed_rows", [1, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", SHARING)
def test_a_shared_source_changes_no_loss(
    family: str, attention: str, packed_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_groups, "AS_COSTLY", {1: 1e9, 2: 1}[packed_rows])
    model, vectors = edited(family)
    try:
        model.set_attn_implementation(attention)
    except ValueError:
        pytest.skip(f"transformers has no sdpa for {family}")
    if getattr(model.config, "sliding_window", None) is not None:
        assert not can_share(model.config, attention, 20)
        model.config.sliding_window = 20
    assert can_share(model.config, attention, 20)

    plain = collate_for_loss(rows(), PAD, encoder_decoder=False)
    alone = label_losses(
        model, plain["labels"], input_ids=plain["input_ids"], attention_mask=plain["attention_mask"], use_cache=False
    )
    batch = collate_shared(rows(), PAD)
    assert len(batch["labels"]) == packed_rows
    shared = label_losses(
        model,
        batch["labels"],
        batch["predictors"],
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=shared_mask(model, batch["sources"], batch["targets"]),
        use_cache=False,
    )
    assert (batch["labels"] >= 0).sum() == (plain["labels"] >= 0).sum()
    assert_equal(loss_and_gradients(shared, vectors), loss_and_gradients(alone, vectors))


@pytest.mark.parametrize("method", [RED(["ffn", "attention"]), PromptTuning(3)])
def test_an_encoder_reads_each_source_once(method: Any) -> None:
    model, vectors = edited("t5", method)
    read: list[int] = []
    batch = collate_encoded_once(rows(), PAD)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    shifted = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])

    def losses() -> Tensor:
        return label_losses(model, batch["labels"], decoder_input_ids=shifted, use_cache=False, **inputs)

    losses()  # compares its ways, once
    model.encoder.block[0].register_forward_hook(lambda *called: read.append(len(called[1][0])))
    alone = loss_and_gradients(losses(), vectors)
    with encoded_once(model, batch["distinct"], batch["source_of"]):
        once = loss_and_gradients(losses(), vectors)
    assert_equal(once, alone)
    assert_equal(loss_and_gradients(losses(), vectors), alone)
    assert read == [7, 3, 7]


def test_what_can_share() -> None:
    gpt2, opt, mistral = (AutoConfig.for_model(name) for name in ("gpt2", "opt", "mistral"))
    assert can_share(gpt2, None, 5000) and can_share(gpt2, "eager", 5000)
    assert not can_share(gpt2, "flash_attention_2", 10)  # it takes no mask
    assert not can_share(opt, None, 10)
    assert can_share(mistral, None, 4096) and not can_share(mistral, None, 4097)  # the window
    assert can_share(AutoConfig.for_model("t5"), "flash_attention_2", 5000)
