"""Backbones in 4 and 8 bits: what is loaded, and what is refused."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from red_lightning.backbones import quantization
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.backbones.sharded_loading import load_sharded
from red_lightning.backbones.sharding import blocks
from red_lightning.editing.surgery import edited_modules
from red_lightning.errors import UsageError
from red_lightning.methods.red import RED, fold_editors
from tests.methods.guarantees import output

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def load(folder: Path, **options: Any) -> Any:
    chosen = BackboneOptions(**options)
    return load_generator(find(str(folder), chosen), chosen)


@needs_bitsandbytes
@pytest.mark.parametrize(
    ("kind", "stored", "error"), [("nf4", "uint8", 0.6), ("fp4", "uint8", 0.6), ("int8", "int8", 0.05)]
)
def test_linears_of_the_blocks_are_stored_in_fewer_bits(
    llama_folder: Path, kind: str, stored: str, error: float
) -> None:
    plain, model = load(llama_folder).eval(), load(llama_folder, quantization=kind)
    assert model.training
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    few = {name for name, dtype in dtypes.items() if dtype in (torch.uint8, torch.int8)}
    assert few == {name for name in dtypes if "_proj." in name}
    assert quantization.is_quantized(model) and not quantization.is_quantized(plain)
    assert model.num_parameters() == plain.num_parameters()
    digest, model = fingerprint(model), model.eval()
    assert (output(model) - output(plain)).abs().max() < error * output(plain).abs().max()
    assert fingerprint(model) == digest == fingerprint(load(llama_folder, quantization=kind))
    assert digest != fingerprint(plain)


@needs_torchao
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "number", "error"),
    [("int8_weight_only", torch.int8, 0.02), ("float8_weight_only", torch.float8_e4m3fn, 0.1)],
)
def test_torchao_stores_linears_and_lets_gradients_through(
    llama_folder: Path, kind: str, number: torch.dtype, error: float, dtype: Any
) -> None:
    """To the editors before them: as much as of the weights that are stored, written out."""
    plain, model = load(llama_folder).eval(), load(llama_folder, quantization=kind, dtype=dtype).eval()
    few = {name: weight for name, weight in model.named_parameters() if quantization.in_fewer_bits(weight)}
    assert few.keys() == {name for name, _ in model.named_parameters() if "_proj." in name}
    assert all(weight.qdata.dtype == number for weight in few.values())
    assert model.num_parameters() == plain.num_parameters()
    assert fingerprint(model) == fingerprint(load(llama_folder, quantization=kind)) != fingerprint(plain)
    assert (output(model) - output(plain)).norm() < error * output(plain).norm()
    for name, weight in few.items():
        plain.get_parameter(name).data = weight.dequantize().float()
    exact = [*gradients(plain), output(plain)]
    found = [*gradients(model), output(model)]
    bound = 1e-4 if dtype == "float32" else 0.1
    assert all((a.float() - b).norm() < bound * b.norm() for a, b in zip(found, exact, strict=True))
    with pytest.raises(UsageError, match="floating-point weights"):
        fold_editors(model)


def gradients(model: Any) -> list[torch.Tensor]:
    """Those of vectors, which are attached if there are none."""
    if not edited_modules(model):
        RED().apply(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ids = torch.arange(2, 14).view(2, 6)
    return list(torch.autograd.grad(model(ids).logits.float().pow(2).mean(), parameters))


@needs_torchao
def test_several_processes_are_refused(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match=r"int8_weight_only is for a single process; give int8 or nf4"):
        load(llama_folder, quantization="int8_weight_only")


@needs_torchao
def test_a_family_without_linears_is_refused(gpt2_folder: Path) -> None:
    with pytest.raises(UsageError, match="float8_weight_only finds no linears in a GPT2LMHeadModel; give int8"):
        load(gpt2_folder, quantization="float8_weight_only")


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_4_bit_weights_are_computed_with_in_the_dtype_of_the_options(llama_folder: Path, dtype: Any) -> None:
    model = load(llama_folder, quantization="nf4", dtype=dtype).eval()
    linear = model.model.layers[0].self_attn.q_proj
    assert linear.compute_dtype == getattr(torch, dtype) == output(model).dtype
    assert linear.weight.quant_state.nested  # its scales are quantized too
    before = linear.weight.clone()
    output(model)
    assert torch.equal(linear.weight, before)


@pytest.mark.parametrize(("kind", "extra"), [("nf4", "quantization"), ("float8_weight_only", "torchao")])
def test_counting_needs_no_package(kind: Any, extra: str, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    options = BackboneOptions(quantization=kind)
    source = find(str(llama_folder), options)
    assert all(parameter.is_meta for parameter in load_generator(source, options, meta=True).parameters())
    sentence = rf"quantization {kind} needs a package: pip install 'red-lightning\[{extra}\]'"
    with pytest.raises(UsageError, match=sentence):
        load_generator(source, options)


def test_quantized_weights_are_not_divided(llama_folder: Path) -> None:
    options = BackboneOptions(quantization="nf4")
    source: Any = find(str(llama_folder), options)
    with pytest.raises(UsageError, match=r"cannot be sharded.* give --trainer.strategy ddp"):
        load_sharded(None, source, options, None, torch.device("cpu"))  # type: ignore[arg-type]


@needs_bitsandbytes
def test_a_quantized_backbone_has_no_units(llama_folder: Path) -> None:
    with pytest.raises(UsageError, match="a quantized backbone cannot be sharded"):
        blocks(load(llama_folder, quantization="nf4"))
