"""Instruction tuning: conversations packed one after another without padding, against padded micro-batches.

The authors' code (TRL's trainer) puts two conversations at a time beside each other, pads the shorter one, and computes
the logits of every token; other scripts pad every row to the limit of 768 tokens.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from red_lightning.benchmark.measure import Case, Row, Variant, compare, count
from red_lightning.benchmark.optimizer_steps import Steps, on
from red_lightning.benchmark.random_tasks import given_by, random_task, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import shape_of
from red_lightning.data import UltraFeedback
from red_lightning.data.collation import IGNORED
from red_lightning.data.packing import balanced, collate_packed, collate_padded
from red_lightning.methods import RED
from red_lightning.tasks import InstructionTuning

ROWS = 500
"""Conversations of which padding is counted."""
TIMED = {"tiny": 2, "small": 4, "paper": 32}
"""Size -> conversations that are timed: micro-batches that follow each other, which are like the whole epoch."""
LONGEST, BESIDE = 768, 2
PLAIN, FIXED = f"{BESIDE} rows padded to the longer (the authors' way)", f"{BESIDE} rows padded to {LONGEST}"
OURS = f"{BESIDE} rows packed"

Batches = list[list[int]]


def measure(settings: Settings) -> Case:
    """Count the padding, and time steps with a model shaped like Llama.

    Args:
        settings: How to measure; ``ultrafeedback_path`` and ``llama_tokenizer`` say where data and tokenizer are.
    """
    with given_by("llama_tokenizer"):
        tokenizer = tokenizer_of(settings.llama_tokenizer)
    data = UltraFeedback(
        settings.ultrafeedback_path,
        max_length=LONGEST,
        micro_batch_size=BESIDE,
        train_size=ROWS,
        validation_size=ROWS // 10,
        seed=settings.seed,
    )
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("ultrafeedback_path"):
        data.setup("fit")
    loader = data.train_dataloader()
    examples = [loader.dataset[index] for index in range(len(loader.dataset))]  # type: ignore[arg-type]
    Random(settings.seed).shuffle(examples)
    lengths = [data.length(row) for row in examples]
    pairs = _pairs(range(len(examples)))
    slots = {
        PLAIN: _slots(pairs, lengths),
        FIXED: float(LONGEST * len(examples)),
        OURS: float(sum(lengths)),
    }
    title = f"{len(examples)} conversations of at most {LONGEST} tokens"
    counted = count(title, slots, settings, "tokens computed in an epoch", gain=True)
    few = _typical(pairs, lengths, TIMED[settings.size] // BESIDE)
    timed, same = _timed([[examples[row] for row in rows] for rows in few], tokenizer, settings)
    checks = {"packed rows have the loss of padded rows": same} if settings.dtype == "float32" else {}
    return Case("UltraFeedback conversations in micro-batches", [*timed, *counted], checks)


def _pairs(rows: Sequence[Any]) -> list[list[Any]]:
    return [list(rows[first : first + BESIDE]) for first in range(0, len(rows), BESIDE)]


def _slots(pairs: Batches, lengths: Sequence[int]) -> float:
    """Tokens that are computed if the shorter rows of each micro-batch are padded."""
    return float(sum(len(rows) * max(lengths[row] for row in rows) for rows in pairs))


def _typical(pairs: Batches, lengths: Sequence[int], number: int) -> Batches:
    """So many micro-batches in a row, of those whose rows are as long and have as much padding as all have."""

    def shape(some: Batches) -> tuple[float, float]:
        rows = [row for pair in some for row in pair]
        own = sum(lengths[row] for row in rows)
        return own / len(rows), _slots(some, lengths) / own

    def apart(some: Batches) -> float:
        return sum(abs(math.log(one / other)) for one, other in zip(shape(some), whole, strict=True))

    whole, full = shape(pairs), [rows for rows in pairs if len(rows) == BESIDE]
    return min((full[first : first + number] for first in range(max(1, len(full) - number + 1))), key=apart)


def _timed(pairs: list[list[Any]], tokenizer: Any, settings: Settings) -> tuple[list[Row], bool]:
    """Steps on some micro-batches, and whether all ways have their losses."""
    shape = shape_of("llama", settings)
    task = random_task(InstructionTuning, RED(), shape, tokenizer, settings)
    task.configure_model()
    task.to(settings.device)
    examples = [row for rows in pairs for row in rows]
    packs = balanced([len(row["tokens"]) for row in examples], len(pairs))
    pad_id = tokenizer.pad_token_id
    padded = [on(settings.device, collate_padded(rows, pad_id)) for rows in pairs]
    packed = [on(settings.device, collate_packed([examples[row] for row in rows])) for rows in packs]
    fixed = [_widened(batch, pad_id) for batch in padded]

    def plain(batch: dict[str, Any]) -> Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = task.backbone(**inputs, use_cache=False).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)

    def ours(batch: dict[str, Any]) -> Tensor:
        return task.training_step(batch, 0)

    ways = {PLAIN: (plain, padded), FIXED: (plain, fixed), OURS: (ours, packed)}
    parameters = list(task.trainable_parameters().values())
    variants = [Variant(name, Steps(parameters, *way), len(examples)) for name, way in ways.items()]
    with torch.no_grad():
        sums = [sum(float(loss(batch)) * _labels(batch) for batch in batches) for loss, batches in ways.values()]
    title = f"{len(examples)} conversations; {shape.family}, {shape.layers} layers of {shape.width}"
    rows = compare(title, variants, settings, "example", gain=True)
    return rows, all(abs(found - sums[0]) <= 1e-5 * abs(sums[0]) for found in sums)


def _widened(batch: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """A padded batch with every row as long as the limit."""
    values = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORED}
    return {
        name: pad(value, (0, LONGEST - value.shape[1]), value=values[name]) if name in values else value
        for name, value in batch.items()
    }


def _labels(batch: dict[str, Any]) -> int:
    return int((batch["labels"][:, 1:] != IGNORED).sum())
