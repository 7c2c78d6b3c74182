"""The methods that reach beyond sites, on the families of readers: each is right, or refused for a true reason."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning import methods
from red_lightning.backbones.decoder_start import decoder_inputs
from red_lightning.editing.sites import norms
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.methods import Method
from tests.backbones_zoo import READERS, build

QUICK = ("bart", "deberta_v1", "xlm")
METHODS: dict[str, Method] = {
    "Adapter": methods.Adapter(rank=2),
    "LastBlocks": methods.LastBlocks(1),
    "LoRA": methods.LoRA(["query", "key", "value"], rank=2),
    "LoReFT": methods.LoReFT(rank=2),
    "PrefixTuning": methods.PrefixTuning(length=3),
    "PromptTuning": methods.PromptTuning(length=3),
}
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 1, 1]])
MASK = (TOKENS != 1).long()
CELLS = [
    pytest.param(family, name, marks=[] if family in QUICK else pytest.mark.slow)
    for family in READERS
    for name in METHODS
]


def read(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        labels = torch.tensor([[5, 6, 7]] * len(tokens))
        inputs |= {"decoder_input_ids": decoder_inputs(model.config, labels), "use_cache": False}
    output: Tensor = model(**inputs)[0]
    return output


def without_pooler(family: str) -> Any:
    """As a task loads it."""
    model: Any = build(family, dropout=0.0)
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    return model


@pytest.mark.parametrize(("family", "name"), CELLS)
def test_a_method_trains_each_row_by_itself_or_is_refused(family: str, name: str) -> None:
    model = without_pooler(family)
    plain, record = read(model, TOKENS, MASK).detach(), record_of(model.config)
    assert record is not None
    if METHODS[name].limit(record, has_head=not model.config.is_encoder_decoder):
        with pytest.raises((UsageError, AssertionError)):  # without the limit it would not run either
            METHODS[name].apply(model)
            read(model, TOKENS, MASK)
        return
    learned = METHODS[name].apply(model)
    for number, tensor in enumerate(learned.values()):
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    output = read(model, TOKENS, MASK)
    assert output.shape == plain.shape and (output - plain).abs().max() > 1e-3
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in learned.values())
    alone = read(model, TOKENS[1:, :6], MASK[1:, :6])
    torch.testing.assert_close(output[1:, : alone.shape[1]], alone, rtol=1e-3, atol=1e-4)
    if name != "LastBlocks":  # which trains the weights themselves
        METHODS[name].detach(model)
        torch.testing.assert_close(read(model, TOKENS, MASK), plain)


def test_debertas_own_layernorm_trains_as_a_layernorm() -> None:
    """What an adapter adds beside a norm is what other weights of that norm would have given."""
    model, other = without_pooler("deberta_v1"), without_pooler("deberta_v1")
    learned = methods.Adapter(rank=2, norms="all").apply(model)
    changed = {name: tensor for name, tensor in learned.items() if "LayerNorm" in name}
    for number, (name, tensor) in enumerate(changed.items()):
        tensor.data = 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
        other.get_parameter(name.replace(".editor", "")).data += tensor
    assert len(changed) == 2 * len(norms(other))
    torch.testing.assert_close(read(model, TOKENS, MASK), read(other, TOKENS, MASK), rtol=1e-4, atol=1e-5)
