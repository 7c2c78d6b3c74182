"""Large models: a training step on a model shaped like Llama-2 7B, and one on 70B in 4 bits. Forward, backward, AdamW.

The baseline is the authors' way: their layer, the logits of all tokens, and all that autograd keeps. Every token is a
label, so that nobody gains by leaving some out. All ways in whole precision share the frozen weights and are measured
in turns. A quantized model cannot share them; so that no model exists twice, each is made, block by block, when those
before it are gone. Its ratios compare runs which were not taken in turns: other work on the machine shows in them.

A share of the peak is the arithmetic that training needs (``backbones/flops.py``: two operations for each weight and
token forward and two for the gradient of its input, none for that of the weight, and causal attention) in the time it
took, over what the device could do in that time. What a way computes twice, to keep less, does not count.
"""

import gc
from collections.abc import Container, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.benchmark.clocks import on_cpu, on_cuda
from red_lightning.benchmark.llama_steps import Way, batch_of, plain_way, red_way, same_gradients
from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare, count
from red_lightning.benchmark.quantized_models import quantized, written_out
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import Shape, build, config_of, shape_of
from red_lightning.callbacks.peak_flops import peak_flops
from red_lightning.editing.surgery import shared_copy
from red_lightning.efficiency.flops import step_flops
from red_lightning.errors import UsageError

PLAIN, OURS, COMPILED, KERNELS = "the authors' way", "RED", "RED, compile", "RED, kernels: liger"
CHECKPOINTED, NF4 = "RED, gradient_checkpointing", "RED, nf4, gradient_checkpointing"
INT8, FLOAT8 = "RED, int8_weight_only", "RED, float8_weight_only"
WAYS = {
    OURS: BackboneOptions(selective_recomputation=True),
    COMPILED: BackboneOptions(compile=True),
    KERNELS: BackboneOptions(kernels="liger"),
    CHECKPOINTED: BackboneOptions(gradient_checkpointing=True),
    NF4: BackboneOptions(quantization="nf4", gradient_checkpointing=True),
    INT8: BackboneOptions(quantization="int8_weight_only", selective_recomputation=True),
    FLOAT8: BackboneOptions(quantization="float8_weight_only", selective_recomputation=True),
}
SPEED = {COMPILED: 1.35, KERNELS: 1.35}
"""Way -> how many times as many tokens a second as the authors' it should do; this and what follows of Llama-2 7B."""
SHARE = {COMPILED: 0.70, KERNELS: 0.70, FLOAT8: 1.0}
"""Way -> the share of the 16-bit peak that it should reach."""
MEMORY = {OURS: 18.5e9, CHECKPOINTED: 14.6e9, NF4: 8e9}
"""Way -> the bytes that it should need at most."""
LARGEST, GROUPS, BUDGET = Shape("Llama", 80, 8192, 64, 28672, 32000, 2, 768), 8, 80e9
"""Llama-2 70B, its heads of keys and values, and the bytes in which a step of it should fit."""
SIDES = {"tiny": 128, "small": 1024, "paper": 8192}
"""Size -> rows and columns of the matrices whose product is the peak of a device that is in no table."""
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
"""How far apart equal losses and gradients may be, as a share."""


def measure(settings: Settings) -> Case:
    """Compare ways to train on a model shaped like Llama.

    Args:
        settings: How to measure. With ``size: paper`` the model is Llama-2 7B in bfloat16, whatever ``dtype`` says, and
            on a GPU with the memory for it there is a step of Llama-2 70B in 4 bits besides.
    """
    paper, small, notes = settings.size == "paper", settings, list[str]()
    if paper:
        settings = replace(settings, dtype="bfloat16")
        small = replace(settings, size="small")
    checks, ways = _checked(small, notes)
    times, peaks, operations = _in_turns(ways, settings)
    for name, options in ways.items():
        if options.quantization is not None:
            times.append(_alone(name, options, times[0], peaks, settings))
    goals = {name: goal / peaks[PLAIN] for name, goal in MEMORY.items()}
    memory = count(times[0].group, peaks, settings, "bytes at the peak", goals=_among(peaks, goals))
    rows = [*times, *_shares(times, operations, settings), *memory]
    if paper and settings.device == "cuda":
        told = ", ".join(f"{goal / 1e9:g} GB for {name}" for name, goal in MEMORY.items())
        notes.append(f"the goals of the memory are {told}; the table has them as shares of {PLAIN}'s")
        if NF4 in ways:
            rows += _largest(settings, notes)
    return Case("A training step of a large model", rows, checks, notes)


def _checked(settings: Settings, notes: list[str]) -> tuple[dict[str, bool], dict[str, BackboneOptions]]:
    """Whether each way has the loss and the gradients of the authors', and the ways that this machine can go."""
    backbone, batch = build("llama", settings), batch_of(shape_of("llama", settings), settings)
    checks: dict[str, bool] = {}
    ways: dict[str, BackboneOptions] = {}
    for name, options in WAYS.items():
        try:
            if options.quantization is None:
                model, plain = shared_copy(backbone), shared_copy(backbone)
            else:
                model = quantized(backbone.config, options.quantization, settings)
                plain = written_out(model, settings)
            ours = red_way(model, options, batch)
            same = same_gradients(ours, plain_way(plain, batch), TOLERANCE[settings.dtype])
        except UsageError as error:
            notes.append(f"'{name}' is left out: {error}")
            continue
        ways[name] = options
        weights = " on the numbers that it stores" if options.quantization else ""
        checks[f"'{name}' has the loss and the gradients of {PLAIN}{weights}, to rounding"] = same
    return checks, ways


def _in_turns(ways: Mapping[str, BackboneOptions], settings: Settings) -> tuple[list[Row], dict[str, float], float]:
    """The times of the ways that share weights, the baseline's first, the memory of each, and a token's operations."""
    backbone, shape = build("llama", settings), shape_of("llama", settings)
    batch = batch_of(shape, settings)
    taken = {PLAIN: plain_way(shared_copy(backbone), batch)}
    for name, options in ways.items():
        if options.quantization is None:
            taken[name] = red_way(shared_copy(backbone), options, batch)
    variants = [_variant(name, way) for name, way in taken.items()]
    title = f"{shape.title}, {settings.dtype}"
    times = compare(title, variants, settings, "token", gain=True, goals=_among(taken, SPEED))
    peaks = {name: way.peak(settings.device) for name, way in taken.items()}
    return times, peaks, _operations(taken[OURS])


def _alone(name: str, options: BackboneOptions, base: Row, peaks: dict[str, float], settings: Settings) -> Row:
    """The time of a way with weights of its own, against the baseline's rounds; its memory is put down too."""
    gc.collect()  # the models before it
    assert options.quantization is not None
    shape = shape_of("llama", settings)
    model = quantized(config_of(shape), options.quantization, settings)
    way = red_way(model, options, batch_of(shape, settings))
    (row,) = compare(base.group, [_variant(name, way)], settings, "token", gain=True)
    peaks[name] = way.peak(settings.device)
    ratios, walls = (
        [other / own for own, other in zip(mine, others, strict=True)]
        for mine, others in ((row.amounts, base.amounts), (row.wall, base.wall))
    )
    return replace(row, ratios=ratios, wall_ratios=walls)


def _shares(times: list[Row], operations: float, settings: Settings) -> list[Row]:
    """The operations per second of each way, against the device's peak.

    Args:
        times: Seconds for a token.
        operations: For a token.
        settings: Device and dtype.
    """
    unit, (what, peak) = "GFLOP/s", _peak(settings)
    rows = [Row(times[0].group, what, unit, [peak / 1e9], [1.0], gain=True)]
    for row in times:
        done, goal = operations / median(row.amounts), Goal(cuda=SHARE.get(row.variant))
        rows.append(Row(row.group, row.variant, unit, [done / 1e9], [done / peak], gain=True, goal=goal.on(settings)))
    return rows


def _operations(way: Way) -> float:
    """What a step has to compute for each of its tokens: operations."""
    flops, ids = step_flops(way.model), way.steps.batches[0].ids
    assert flops is not None  # a decoder's
    pairs = ids.numel() * (ids.shape[1] + 1) / 2
    return flops.of(ids.numel(), ids.numel() - len(ids), pairs) / ids.numel()


def _peak(settings: Settings) -> tuple[str, float]:
    """The most operations per second of a device, by its maker or else by a product of matrices; and by which."""
    on_gpu = settings.device == "cuda"
    known = peak_flops(torch.device("cuda"), torch.bfloat16) if on_gpu and settings.dtype == "bfloat16" else None
    if known is not None:
        return "the GPU's 16-bit peak, by its data sheet", known
    side, clock = SIDES[settings.size], on_cuda if on_gpu else on_cpu
    matrix = torch.randn(side, side).to(settings.device, settings.torch_dtype)
    seconds = min(clock(lambda: matrix @ matrix).seconds for _ in range(10))
    return f"a product of {side:,} x {side:,} matrices", 2 * side**3 / seconds


def one_step(shape: Shape, config: Any, settings: Settings) -> list[Row]:
    """Take a step on a model in 4 bits with gradient checkpointing (after one to warm up): its time and its memory.

    Args:
        shape: The model, and the batch.
        config: The configuration of that shape.
        settings: Device and dtype.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    way = red_way(quantized(config, "nf4", settings), WAYS[NF4], batch_of(shape, settings))
    title = f"{shape.title}, {settings.dtype}"
    rows = compare(title, [_variant(NF4, way)], replace(settings, rounds=1), "token")
    amounts = {f"a budget of {BUDGET / 1e9:.0f} GB": BUDGET, NF4: way.peak(settings.device)}
    return rows + count(title, amounts, settings, "bytes at the peak", goals={NF4: Goal(cuda=1.0)})


def largest() -> Any:
    """The configuration of Llama-2 70B."""
    config = config_of(LARGEST)
    config.num_key_value_heads = GROUPS
    return config


def _largest(settings: Settings, notes: list[str]) -> list[Row]:
    """The step on Llama-2 70B, or a note why there is none."""
    gc.collect()
    try:
        return one_step(LARGEST, largest(), settings)
    except torch.cuda.OutOfMemoryError:
        notes.append("the step of Llama-2 70B is left out: the GPU has too little memory for it")
        return []


def _variant(name: str, way: Way) -> Variant:
    return Variant(name, way.steps, way.steps.batches[0].ids.numel())


def _among(present: Container[str], goals: Mapping[str, float]) -> dict[str, Goal]:
    """The goals, which are an H200's, of those that are present."""
    return {name: Goal(cuda=goal) for name, goal in goals.items() if name in present}
