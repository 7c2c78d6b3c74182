"""What a method attaches is float32, in values too, where torch's default dtype is another (Lightning's bf16-true)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from red_lightning.methods import (
    IA3,
    RED,
    SSF,
    AdaLoRA,
    Adapter,
    AdapterDrop,
    AdapterFFN,
    BitFit,
    LoRA,
    LoReFT,
    Method,
    PrefixTuning,
    PromptTuning,
    SteeringVector,
    VeRA,
)
from tests.backbones_zoo import build

METHODS = [  # QLoRA is LoRA on a quantized backbone; full fine-tuning and the last blocks add nothing
    AdaLoRA(),
    Adapter(),
    AdapterDrop(drop=1),
    AdapterFFN(),
    BitFit(),
    IA3(),
    LoRA(),
    LoReFT(),
    PrefixTuning(3),
    PrefixTuning(3, projection=4),
    PromptTuning(3),
    PromptTuning(3, init="random"),
    RED(),
    SSF(),
    SteeringVector("pairs.jsonl", layer=0),
    VeRA(rank=8),
]


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_they_are_float32_under_another_default(method: Method) -> None:
    def attached(dtype: torch.dtype) -> dict[str, nn.Parameter]:
        model = build("gpt2")
        torch.manual_seed(1)
        with default(dtype):
            parameters = method.apply(model)
            assert torch.get_default_dtype() == dtype
        return parameters

    seen, expected = attached(torch.bfloat16), attached(torch.float32)
    assert seen and set(seen) == set(expected)
    assert {parameter.dtype for parameter in seen.values()} == {torch.float32}
    assert all(torch.equal(seen[name], expected[name]) for name in seen)  # not drawn in bfloat16 and widened
