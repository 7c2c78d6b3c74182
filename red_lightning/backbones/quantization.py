"""Backbones whose frozen weights are stored in 4 or 8 bits, through bitsandbytes."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from red_lightning.errors import UsageError

Dtype = Literal["float32", "bfloat16", "float16"]
"""The number formats in which backbones are computed with."""

Quantization = Literal["nf4", "fp4", "int8"]
"""How the weights of linears are stored: as 4-bit numbers (NormalFloat, of QLoRA's paper, or floating point) with one
scale to 64 of them, which is itself stored in 8 bits, or as 8-bit integers (LLM.int8, arXiv 2208.07339)."""


def quantization_config(quantization: Quantization | None, dtype: str) -> Any:
    """Transformers' configuration of a quantised backbone; None for one that is not.

    Args:
        quantization: How weights are stored.
        dtype: Name of the dtype in which 4-bit weights are computed with. int8 computes in float16.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    if quantization is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            f"model.backbone_options.quantization {quantization} needs a package: "
            "pip install 'red-lightning[quantization]'"
        )
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


def keep_format(backbone: nn.Module) -> None:
    """Keep 4-bit weights as they were loaded: on some CPUs bitsandbytes else rounds and packs them anew when used."""
    module: Any
    for module in backbone.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(backbone: nn.Module) -> bool:
    """Whether some of the backbone's weights are stored as integers."""
    return any(not parameter.is_floating_point() for parameter in backbone.parameters())


def backbone_of(record: Mapping[str, Any]) -> str:
    """The backbone that a record names, in words: quantised weights are not those that they were made from.

    Args:
        record: With ``backbone``, and with ``quantization`` if it is not of an older version.
    """
    quantization = record.get("quantization")
    return f"'{record['backbone']}'" + (f" quantised to {quantization}" if quantization else "")


def refuse_division(backbone_is_quantized: bool) -> None:
    """Refuse to divide quantised weights over processes: their scales would not be divided with them.

    Raises:
        UsageError: They are quantised.
    """
    if backbone_is_quantized:
        raise UsageError(
            "a quantised backbone cannot be divided over processes; leave model.backbone_options.quantization out, or "
            "give --trainer.strategy ddp, with which each process holds all of it"
        )
