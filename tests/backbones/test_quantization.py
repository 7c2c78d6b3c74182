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
from red_lightning.errors import UsageError
from tests.methods.guarantees import output

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


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_4_bit_weights_are_computed_with_in_the_dtype_of_the_options(llama_folder: Path, dtype: Any) -> None:
    model = load(llama_folder, quantization="nf4", dtype=dtype).eval()
    linear = model.model.layers[0].self_attn.q_proj
    assert linear.compute_dtype == getattr(torch, dtype) == output(model).dtype
    assert linear.weight.quant_state.nested  # its scales are quantised too
    before = linear.weight.clone()
    output(model)
    assert torch.equal(linear.weight, before)


def test_counting_needs_no_bitsandbytes(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    options = BackboneOptions(quantization="nf4")
    source = find(str(llama_folder), options)
    assert all(parameter.is_meta for parameter in load_generator(source, options, meta=True).parameters())
    sentence = r"quantization nf4 needs a package: pip install 'red-lightning\[quantization\]'"
    with pytest.raises(UsageError, match=sentence):
        load_generator(source, options)


def test_quantised_weights_are_not_divided(llama_folder: Path) -> None:
    options = BackboneOptions(quantization="nf4")
    source: Any = find(str(llama_folder), options)
    with pytest.raises(UsageError, match=r"cannot be divided .* give --trainer.strategy ddp"):
        load_sharded(None, source, options, None, torch.device("cpu"))  # type: ignore[arg-type]


@needs_bitsandbytes
def test_a_quantised_backbone_has_no_units(llama_folder: Path) -> None:
    with pytest.raises(UsageError, match="a quantised backbone cannot be divided over processes"):
        blocks(load(llama_folder, quantization="nf4"))
