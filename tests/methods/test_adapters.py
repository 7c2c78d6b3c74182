"""Adapters against their equation, the trained norms against plain torch, and the paper's counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from red_lightning.editing.sites import norms
from red_lightning.errors import UsageError
from red_lightning.methods import Adapter, AdapterDrop, AdapterFFN, RepresentationEditor
from red_lightning.methods.adapters import Bottleneck, TrainedNorm
from red_lightning.methods.method import Method
from tests.backbones_zoo import FAMILIES, build
from tests.methods.guarantees import check, output, size, train
from tests.methods.real_sizes import on_meta

SELF = ["*.SelfAttention.o", "ffn"]
"""The sites of the T5 rows: no cross-attention."""


@pytest.mark.parametrize(
    ("activation", "nonlinear"), [("relu", torch.relu), ("tanh", torch.tanh), ("gelu", nn.GELU()), ("silu", nn.SiLU())]
)
def test_is_the_equation(activation: Any, nonlinear: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6))
    hidden = torch.randn(3, 4)
    plain = model(hidden)
    p = Adapter(2, ["0*"], "none", activation).apply(model)
    assert {name: tuple(value.shape) for name, value in p.items()} == {
        "0.editor.down.weight": (2, 6),
        "0.editor.down.bias": (2,),
        "0.editor.up.weight": (6, 2),
        "0.editor.up.bias": (6,),
    }
    assert torch.equal(model(hidden), plain)
    for value in p.values():
        value.data.normal_()
    down, down_bias, up, up_bias = p.values()
    expected = plain + nonlinear(plain @ down.T + down_bias) @ up.T + up_bias
    torch.testing.assert_close(model(hidden), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_norms_are_training_the_norms_in_place(family: str) -> None:
    ours, theirs = build(family), build(family)
    names = [site.module for site in norms(theirs)]
    every = Adapter(norms="all").apply(ours)
    learned = {key: p for key, p in every.items() if key.endswith((".editor.weight", ".editor.bias"))}
    theirs.requires_grad_(False)
    own = {f"{name}.{key}": p for name in names for key, p in theirs.get_submodule(name).named_parameters()}
    assert {name.replace(".editor.", ".") for name in learned} == set(own)
    for parameter in own.values():
        parameter.requires_grad_()
    train(ours, learned, rate=0.05)
    train(theirs, own, rate=0.05)
    torch.testing.assert_close(output(ours), output(theirs), atol=1e-4, rtol=2e-4)  # torch 2.4: 3e-5
    start = dict(build(family).named_parameters())
    for key, parameter in learned.items():
        stored = key.replace(".editor.", ".")
        torch.testing.assert_close(start[stored] + parameter, own[stored], atol=2e-6, rtol=1e-5)


METHODS: dict[str, Method] = {
    "Houlsby": Adapter(),
    "all norms": Adapter(2, norms="all", activation="relu"),
    "no norms": Adapter(4, ["attention"], "none", "tanh"),
    "Pfeiffer": AdapterFFN(),
    "drop": AdapterDrop(4, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_guarantees(family: str, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    check(METHODS[name], family, tmp_path, dtype)


def test_a_small_step_counts_beside_a_bfloat16_norm() -> None:
    model = build("llama").bfloat16()
    learned = Adapter().apply(model)
    train(model, learned, rate=1e-5)
    step = learned["model.layers.0.input_layernorm.editor.weight"].detach()
    weight = model.model.layers[0].input_layernorm.weight
    assert step.abs().max() > 0
    assert torch.equal((weight.float() + step).bfloat16(), weight)  # in bfloat16 it would be lost


def test_norms_and_layers_are_chosen() -> None:
    model = build("t5", layers=3)
    learned = AdapterDrop(2, 2, SELF, "all").apply(model)
    adapters = {name.split(".editor")[0] for name in learned if ".editor.down." in name}
    assert adapters == {
        "encoder.block.2.layer.0.SelfAttention.o",
        "encoder.block.2.layer.1.DenseReluDense.wo",
        "decoder.block.2.layer.0.SelfAttention.o",
        "decoder.block.2.layer.2.DenseReluDense.wo",
    }
    assert sum(".layer_norm.editor.weight" in name for name in learned) == 3 * 2 + 3 * 3
    assert sum("final_layer_norm.editor.weight" in name for name in learned) == 2
    inside = Adapter(2, SELF, "blocks").apply(build("t5", layers=3))
    assert set(Adapter(2, SELF, "all").apply(build("t5", layers=3))) - set(inside) == {
        "encoder.final_layer_norm.editor.weight",
        "decoder.final_layer_norm.editor.weight",
    }


def test_first_values_follow_the_seed() -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = build("gpt2")
        torch.manual_seed(seed)
        drawn.append(AdapterFFN().apply(model)["transformer.h.0.mlp.c_proj.editor.down.weight"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[0].std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        (Adapter, {"rank": 0}, "rank is 0, but must be at least 1"),
        (Adapter, {"activation": "relo"}, "unknown activation 'relo': did you mean 'relu'?"),
        (Adapter, {"norms": "some"}, "unknown norms 'some': choose blocks, all or none"),
        (AdapterDrop, {"drop": -1}, "drop is -1, but must be at least 0"),
    ],
)
def test_bad_options_get_one_sentence(method: type[Method], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        method(**options)


@pytest.mark.parametrize(
    ("family", "method", "sentence"),
    [
        ("gpt2", AdapterDrop(), r"drop is 5, but the backbone has 2 layers .*; give a smaller number$"),
        ("albert", AdapterDrop(drop=1), "drop is 1, but the backbone has 1 layer"),
        ("gpt2", Adapter(sites=["fnn"]), "unknown site 'fnn'"),
        ("distilbert", Adapter(sites=["residual"]), "'transformer.layer.0.output_layer_norm' cannot be trained and"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(family: str, method: Method, sentence: str) -> None:
    model = build(family)
    with pytest.raises(UsageError, match=sentence) as raised:
        method.apply(model)
    assert "\n" not in str(raised.value)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_are_float32_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden, output = torch.randn(2, 5, 64, dtype=dtype), torch.randn(2, 5, 64, dtype=dtype)
    for module, inputs in [
        (Bottleneck(64, 8), (hidden,)),
        (TrainedNorm(nn.LayerNorm(64)), (output, hidden)),
        (RepresentationEditor(64), (hidden,)),
    ]:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        plain = module(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module(*inputs), plain)
        assert plain.dtype == dtype


def test_an_adapter_cannot_be_folded() -> None:
    model = build("gpt2")
    method = Adapter()
    train(model, method.apply(model))
    edited = output(model)
    with pytest.raises(UsageError, match="Adapter cannot be merged"):
        method.fold(model)
    assert torch.equal(output(model), edited)


def adapter(width: int, rank: int) -> int:
    return 2 * width * rank + rank + width


@pytest.mark.parametrize(
    ("name", "method", "terms", "count"),
    [
        ("roberta-base", Adapter(8), 24 * (adapter(768, 8) + 2 * 768), 350_400),  # Table 1: 0.4M
        ("roberta-large", Adapter(8), 48 * (adapter(1024, 8) + 2 * 1024), 934_272),  # 0.9M
        ("gpt2-medium", Adapter(8), 48 * (adapter(1024, 8) + 2 * 1024), 934_272),  # Table 2: 0.9M
        ("gpt2-large", Adapter(8), 72 * (adapter(1280, 8) + 2 * 1280), 1_751_616),  # 1.8M
        ("gpt2-medium", Adapter(1), 48 * (adapter(1024, 1) + 2 * 1024), 245_808),  # Table 5: 0.25M
        ("roberta-base", AdapterFFN(), 12 * adapter(768, 16), 304_320),  # Table 1: 0.3M
        ("roberta-large", AdapterFFN(), 24 * adapter(1024, 16), 811_392),  # 0.8M
        ("gpt2-medium", AdapterFFN(), 24 * adapter(1024, 16), 811_392),  # Table 2: 0.8M
        ("gpt2-large", AdapterFFN(), 36 * adapter(1280, 16), 1_521_216),  # 1.5M
        ("gpt2-medium", AdapterFFN(1), 24 * adapter(1024, 1), 73_752),  # Table 5: 0.07M
        ("t5-base", Adapter(24, SELF, "all"), 48 * adapter(768, 24) + 62 * 768, 1_855_104),  # Table 3: 1.9M
        ("t5-base", AdapterDrop(24, 5, SELF, "all"), 28 * adapter(768, 24) + 62 * 768, 1_101_984),  # 1.1M
    ],
)
def test_counts_of_the_paper(name: str, method: Method, terms: int, count: int) -> None:
    model = on_meta(name, AutoModelForSeq2SeqLM) if name == "t5-base" else on_meta(name)
    assert size(method.apply(model)) == terms == count
