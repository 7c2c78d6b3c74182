"""LoRA: the closed form, and the paper's parameter counts."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from red_lightning.methods import LoRA
from tests.backbones_zoo import build
from tests.methods.guarantees import size
from tests.methods.real_sizes import on_meta


@pytest.mark.parametrize(
    ("backbone", "method", "count"),
    [
        ("roberta-base", LoRA(), 294_912),  # 0.3M
        ("roberta-large", LoRA(), 786_432),  # 0.8M
        ("gpt2-medium", LoRA(), 786_432),  # 0.8M: one pair on c_attn, (1024 + 3072) * 8 * 24
        ("gpt2-large", LoRA(), 1_474_560),  # 1.5M
        ("gpt2-medium", LoRA(rank=1), 98_304),  # 0.1M
    ],
)
def test_counts_of_the_paper(backbone: str, method: LoRA, count: int) -> None:
    assert size(method.apply(on_meta(backbone))) == count


def test_count_of_llama() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig())  # the 7B of Llama 1 and 2
    parameters = LoRA(rank=16).apply(model)
    assert size(parameters) == 8_388_608  # 8.39M
    assert all(parameter.is_meta for parameter in parameters.values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_equation_3(family: str) -> None:
    model = build(family)
    name = {"llama": "model.layers.0.self_attn.q_proj", "gpt2": "transformer.h.0.attn.c_attn"}[family]
    plain = model.get_submodule(name)
    parameters = LoRA(rank=2, alpha=6).apply(model)
    a, b = (parameters[f"{name}.lora_{side}.editor.weight"] for side in "AB")
    assert torch.equal(b, torch.zeros_like(b)) and a.abs().max() > 0
    b.data.normal_()
    inputs = torch.randn(3, 32)
    expected = plain(inputs) + 3 * inputs @ a.T @ b.T
    torch.testing.assert_close(model.get_submodule(name)(inputs), expected)


def test_cross_attention_of_t5_is_adapted_too() -> None:
    model = build("t5", layers=1)
    assert LoRA().targets(model) == [
        "encoder.block.0.layer.0.SelfAttention.q",
        "encoder.block.0.layer.0.SelfAttention.v",
        "decoder.block.0.layer.0.SelfAttention.q",
        "decoder.block.0.layer.0.SelfAttention.v",
        "decoder.block.0.layer.1.EncDecAttention.q",
        "decoder.block.0.layer.1.EncDecAttention.v",
    ]


def test_fold_into_bfloat16_rounds_once() -> None:
    model = build("llama").bfloat16()
    name = "model.layers.0.self_attn.q_proj"
    weight = model.get_submodule(name).weight.detach().float()
    method = LoRA(rank=2)
    parameters = method.apply(model)
    a, b = (parameters[f"{name}.lora_{side}.editor.weight"] for side in "AB")
    b.data.normal_()
    method.fold(model)
    expected = (weight + 4 * (b @ a)).bfloat16()
    assert torch.equal(model.get_submodule(name).weight, expected)
