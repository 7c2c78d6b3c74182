"""Random models in 4 or 8 bits, made block by block: their weights never exist in whole precision all at once."""

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from red_lightning.backbones.quantization import (
    OF_TORCHAO,
    Quantization,
    check_format,
    in_fewer_bits,
    quantization_config,
)
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import random_model


def quantized(config: LlamaConfig, quantization: Quantization, settings: Settings) -> Any:
    """A random Llama whose blocks' linears are quantized as transformers does it, in training mode.

    Beside what is quantized there is one block at a time.

    Args:
        config: Its shape.
        quantization: ``nf4``, ``fp4``, or one of torchao's.
        settings: Device, and the dtype of all other weights and of the computation.

    Raises:
        UsageError: bitsandbytes or torchao is not installed.
    """
    recipe = quantization_config(quantization, settings.dtype)
    blocks, config.num_hidden_layers = config.num_hidden_layers, 0
    try:
        model = random_model(config, settings)
    finally:
        config.num_hidden_layers = blocks
    model.config.num_hidden_layers = blocks
    for number in range(blocks):
        block = _block(model.config, number, settings)
        if quantization in OF_TORCHAO:
            from torchao.quantization import quantize_

            quantize_(block, recipe.quant_type)
        else:
            _to_4_bits(block, recipe, settings)
        model.model.layers.append(block)
    check_format(model, quantization)
    return model


def written_out(model: Any, settings: Settings) -> Any:
    """The same model with linears that hold the numbers for which the quantized ones stand.

    Args:
        model: What :func:`quantized` returned, without edits.
        settings: As there.
    """
    plain = random_model(model.config, settings)
    with torch.no_grad():
        for name, module in model.named_modules():
            for own, weight in module.named_parameters(recurse=False):
                if in_fewer_bits(weight):
                    identity = torch.eye(module.in_features, dtype=settings.torch_dtype, device=settings.device)
                    weight = module(identity).T
                plain.get_submodule(name).get_parameter(own).copy_(weight)
    return plain


def _block(config: LlamaConfig, number: int, settings: Settings) -> nn.Module:
    """A random block, in training mode."""
    devices = range(torch.cuda.device_count() if settings.device == "cuda" else 0)
    with torch.random.fork_rng(devices), torch.device(settings.device):
        torch.manual_seed(number)
        return LlamaDecoderLayer(config, number).to(settings.torch_dtype).requires_grad_(False)


def _to_4_bits(block: nn.Module, recipe: Any, settings: Settings) -> None:
    """Put a linear of bitsandbytes in the place of each linear of a block."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in list(block.named_modules()):
        if not isinstance(linear, nn.Linear):
            continue
        numbers = {
            "compress_statistics": recipe.bnb_4bit_use_double_quant,
            "quant_type": recipe.bnb_4bit_quant_type,
        }
        sizes = (linear.in_features, linear.out_features, linear.bias is not None)
        small = Linear4bit(*sizes, compute_dtype=recipe.bnb_4bit_compute_dtype, device="meta", **numbers)
        weight: Any = Params4bit(linear.weight.data, module=small, **numbers)
        small.weight = weight.to(settings.device)  # which packs it
        small.bias = linear.bias
        parent, _, child = name.rpartition(".")
        setattr(block.get_submodule(parent), child, small)
