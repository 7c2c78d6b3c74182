"""A training step of Llama-2 7B with each option for speed or memory, against the authors' way.

The authors' way is their layer, the logits of all tokens, and all activations kept. Every token is a label, so that no
variant gains by skipping logits.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.quantization import OF_TORCHAO, check_format, quantization_config
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.memory import held_bytes, peak_bytes
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.random_models import build, shape_of, token_ids
from red_lightning.benchmark.training_steps import Steps, agree, loss_of_all_logits
from red_lightning.data.collation import IGNORED
from red_lightning.editing.surgery import shared_copy
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.preparation import prepare, require_options
from red_lightning.errors import UsageError
from red_lightning.methods import RED

AUTHORS = "the authors' way"
WAYS = {
    "RED, selective_recomputation": BackboneOptions(selective_recomputation=True),
    "RED, compile": BackboneOptions(compile=True),
    "RED, kernels liger": BackboneOptions(kernels="liger"),
    "RED, gradient_checkpointing": BackboneOptions(gradient_checkpointing=True),
    "RED, nf4, gradient_checkpointing": BackboneOptions(quantization="nf4", gradient_checkpointing=True),
    "RED, int8_weight_only": BackboneOptions(quantization="int8_weight_only", selective_recomputation=True),
    "RED, float8_weight_only": BackboneOptions(quantization="float8_weight_only", selective_recomputation=True),
}
"""Variant -> options of the backbone."""
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
"""Largest relative difference of equal losses and gradients."""


def large_models(settings: Settings) -> Iterator[Table]:
    """Compare time and peak memory of a step.

    ``size: paper`` is Llama-2 7B in bfloat16. Its checks run on the small model in the dtype of the settings.
    """
    small = replace(settings, size="small") if settings.size == "paper" else settings
    settings = replace(settings, dtype="bfloat16") if settings.size == "paper" else settings
    checks: dict[str, bool] = {}
    notes: list[str] = []
    for name, options in WAYS.items():
        try:
            ours, plain = (
                red_way(model_for(options, small), options, small),
                plain_way(model_for(options, small), small),
            )
            same = agree(ours.steps, plain.steps, TOLERANCE[small.dtype], TOLERANCE[small.dtype])
            checks[f"'{name}' has the loss and the gradients of {AUTHORS}"] = same
        except UsageError as error:
            notes.append(f"'{name}' is missing: {error}")
        ours = plain = None  # type: ignore[assignment]
    backbone = build("llama", settings)
    ways = {AUTHORS: plain_way(shared_copy(backbone), settings)}
    for name, options in WAYS.items():
        if f"'{name}' has the loss and the gradients of {AUTHORS}" in checks:
            model = model_for(options, settings) if options.quantization else shared_copy(backbone)
            ways[name] = red_way(model, options, settings)
    peaks = {name: way.peak(settings.device) for name, way in ways.items()}
    shape = shape_of("llama", settings)
    yield Table(
        f"{shape.title}, {settings.dtype}",
        {name: way.steps for name, way in ways.items()},
        "token",
        shape.rows * shape.tokens,
        {"bytes at the peak": peaks},
        checks,
        notes,
    )


class Way:
    """A model and the steps that train it. The vectors start away from the identity.

    Args:
        model: The model.
        vectors: Its trainable parameters.
        loss: Takes the model and the tokens.
        settings: Size and device.
    """

    def __init__(self, model: Any, vectors: Any, loss: Any, settings: Settings) -> None:
        self.model, parameters = model, list(vectors)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for vector in parameters:  # multiples of 1/64, which bfloat16 holds exactly
                away = torch.randint(-8, 9, (vector.numel(),), generator=generator) / 64
                vector.add_(away.view_as(vector).to(vector))
        self.steps = Steps(parameters, partial(loss, model), [token_ids(shape_of("llama", settings), settings)])

    def peak(self, device: str) -> float:
        """Return the peak bytes of a step: weights, trainable parameters, Adam's moments, and what the step makes."""
        self.steps()  # makes Adam's moments
        moments = [value for state in self.steps.optimizer.state.values() for value in state.values()]
        held = held_bytes((*self.model.state_dict().values(), *self.model.buffers(), *moments))
        return float(held + peak_bytes(self.steps, device))


def plain_way(model: Any, settings: Settings) -> Way:
    """Train a model as the authors do."""
    return Way(model, apply_plain_edits(model), loss_of_all_logits, settings)


def red_way(model: Any, options: BackboneOptions, settings: Settings) -> Way:
    """Train a model as the package does.

    Raises:
        UsageError: The machine lacks what the options need.
    """
    require_options(options, model.config.model_type)
    prepare(model, options)
    labels = token_ids(shape_of("llama", settings), settings)
    labels[:, 0] = IGNORED  # no token precedes the first
    places = (labels >= 0).nonzero().T

    def loss_of_labels(model: Any, ids: Tensor) -> Tensor:
        losses = label_losses(model, labels, places=places, input_ids=ids, use_cache=False)
        return losses.sum() / places.shape[1]

    return Way(model, RED().apply(model).values(), loss_of_labels, settings)


def model_for(options: BackboneOptions, settings: Settings) -> Any:
    """Return a random Llama, with the linear layers of its blocks quantized as transformers does it.

    Raises:
        UsageError: bitsandbytes or torchao is not installed.
    """
    recipe = quantization_config(options.quantization, settings.dtype)
    model = build("llama", settings)
    if options.quantization is None:
        return model
    if options.quantization in OF_TORCHAO:
        from torchao.quantization import quantize_

        quantize_(model.model.layers.requires_grad_(False), recipe.quant_type)
    else:
        _to_4_bits(model.model.layers, recipe, settings.device)
    check_format(model, options.quantization)
    return model


def _to_4_bits(blocks: nn.Module, recipe: Any, device: str) -> None:
    """Replace each linear layer by one of bitsandbytes."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in list(blocks.named_modules()):
        if isinstance(linear, nn.Linear):
            how = {
                "compress_statistics": recipe.bnb_4bit_use_double_quant,
                "quant_type": recipe.bnb_4bit_quant_type,
            }
            sizes = (linear.in_features, linear.out_features, linear.bias is not None)
            small = Linear4bit(*sizes, compute_dtype=recipe.bnb_4bit_compute_dtype, device="meta", **how)
            weight: Any = Params4bit(linear.weight.data, requires_grad=False, module=small, **how)
            small.weight, small.bias = weight.to(device), linear.bias  # moving it packs it
            parent, _, child = name.rpartition(".")
            setattr(blocks.get_submodule(parent), child, small)
