"""Quantized backbones: 4 or 8 bits, through bitsandbytes or torchao."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from red_lightning.errors import UsageError

Dtype = Literal["float32", "bfloat16", "float16"]
"""The number formats in which backbones are computed with."""

Quantization = Literal["nf4", "fp4", "int8", "int8_weight_only", "float8_weight_only"]
"""How the weights of linears are stored: as 4-bit numbers (NormalFloat, of QLoRA's paper, or floating point) with one
scale to 64 of them, which is itself stored in 8 bits; as 8-bit integers, with which 8-bit activations are multiplied
(LLM.int8, arXiv 2208.07339); or as 8-bit integers or floating-point numbers with one scale to each output, from which
they are converted back where they are used (torchao)."""

OF_TORCHAO = ("int8_weight_only", "float8_weight_only")
"""Those that torchao makes."""


def quantization_config(quantization: Quantization | None, dtype: str) -> Any:
    """Transformers' configuration of a quantized backbone; None for one that is not.

    Args:
        quantization: How weights are stored.
        dtype: Name of the dtype in which weights are computed with. int8 computes in float16.

    Raises:
        UsageError: bitsandbytes or torchao is not installed.
    """
    if quantization is None:
        return None
    package, extra = ("torchao", "torchao") if quantization in OF_TORCHAO else ("bitsandbytes", "quantization")
    if find_spec(package) is None:
        raise UsageError(
            f"model.backbone_options.quantization {quantization} needs a package: pip install 'red-lightning[{extra}]'"
        )
    if quantization in OF_TORCHAO:
        return _torchao_config(quantization)
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        # it says at every linear that it computes in float16
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _torchao_config(quantization: Quantization) -> Any:
    """The same, of what torchao makes."""
    for name in ("torchao", "torch.utils._pytree"):  # kernels that it has for other devices, and how it registers types
        logging.getLogger(name).setLevel(logging.ERROR)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if quantization == "int8_weight_only" else Float8WeightOnlyConfig())


def check_format(backbone: nn.Module, quantization: Quantization | None) -> None:
    """See that weights were quantized, and that they stay so.

    On some CPUs bitsandbytes else rounds 4-bit weights and packs them anew when they are used.

    Raises:
        UsageError: The model has no linears that torchao knows (GPT-2's are of another class), or there are several
            processes, between which DistributedDataParallel cannot compare torchao's tensors.
    """
    if quantization in OF_TORCHAO and distributed.is_available() and distributed.is_initialized():
        raise UsageError(
            f"model.backbone_options.quantization {quantization} is for a single process; give int8 or nf4, or "
            "--trainer.devices 1"
        )
    if quantization in OF_TORCHAO and not is_quantized(backbone):
        raise UsageError(
            f"model.backbone_options.quantization {quantization} finds no linears in a {type(backbone).__name__}; give "
            "int8 or nf4"
        )
    module: Any
    for module in backbone.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(backbone: nn.Module) -> bool:
    """Whether some of the backbone's weights are stored in fewer bits."""
    return any(in_fewer_bits(parameter) for parameter in backbone.parameters())


def in_fewer_bits(weight: Tensor) -> bool:
    """Whether a weight is quantized: to integers, or by torchao, whose tensors pass for what they stand for."""
    return not weight.is_floating_point() or type(weight).__module__.startswith("torchao.")


def backbone_of(record: Mapping[str, Any]) -> str:
    """The backbone that a record names, in words: quantized weights are not those that they were made from.

    Args:
        record: With ``backbone``, and with ``quantization`` if it is not of an older version.
    """
    quantization = record.get("quantization")
    return f"'{record['backbone']}'" + (f" quantized to {quantization}" if quantization else "")
