"""Padding in GLUE and UltraFeedback: batches of similar length and packed rows, against the authors' batches.

The authors' GLUE code draws batches at random and pads each to its longest row. Their instruction tuning (the trainer
of TRL) pads the shorter of two conversations, and computes the logits of every token. Other scripts pad every row to
the maximum length. All variants compute the same loss of each row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.random_models import given_by, random_task, shape_of, tokenizer_of
from red_lightning.benchmark.training_steps import Steps, evenly, loss_of_all_logits, on, total_loss
from red_lightning.data import GLUE, UltraFeedback
from red_lightning.data.packing import balanced, collate_packed, collate_padded
from red_lightning.methods import RED
from red_lightning.tasks import Classification, InstructionTuning

TASKS, GLUE_BATCH, GLUE_LENGTH = ("mrpc", "cola", "rte", "stsb"), 32, 128
"""GLUE's smaller tasks, rows of a batch, and maximum length. Steps are timed on the first task."""
GLUE_TIMED = {"tiny": 1, "small": 2, "paper": 20}
"""Size -> timed batches."""
CONVERSATIONS, PAIR, CHAT_LENGTH = 500, 2, 768
"""Conversations whose padding is counted, rows of a micro-batch, and maximum length."""
CHAT_TIMED = {"tiny": 1, "small": 2, "paper": 16}
"""Size -> timed micro-batches."""
TOKENS = "tokens computed in an epoch"
RANDOM, GROUPED = "random batches (authors)", "group_by_length"
PADDED, PACKED = "padded to the longer row (authors)", "packing"

Batches = list[list[int]]


def glue_training(settings: Settings) -> Iterator[Table]:
    """Count the padding of four tasks, and time steps on one with a model shaped like RoBERTa."""
    with given_by("roberta_tokenizer"):
        tokenizer = tokenizer_of(settings.roberta_tokenizer)
    for name in TASKS:
        yield _glue_task(name, tokenizer, settings)


def _glue_task(name: str, tokenizer: Any, settings: Settings) -> Table:
    options: Any = {"max_length": GLUE_LENGTH, "group_by_length": True, "seed": settings.seed}
    data = GLUE(name, settings.glue_path, global_batch_size=GLUE_BATCH, **options)
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("glue_path"):
        data.setup("fit")
    loader: Any = data.train_dataloader()
    examples, lengths = _examples(data, loader)
    epoch = list(loader.batches)
    at_random = Random(settings.seed).sample(range(len(lengths)), len(lengths))
    counts = {
        RANDOM: _padded_tokens(_cut(at_random, GLUE_BATCH), lengths),
        f"padded to {GLUE_LENGTH}": float(GLUE_LENGTH * len(lengths)),
        GROUPED: _padded_tokens(epoch, lengths),
        "no padding": float(sum(lengths)),
    }
    title = f"{name}: {len(lengths):,} rows, batches of {GLUE_BATCH}"
    if name != TASKS[0]:
        return Table(title, counts={TOKENS: counts})
    shape = shape_of("roberta", settings)
    if settings.size == "small":
        shape = replace(shape, width=384, heads=6, inner=1536)
    task = random_task(Classification, RED(), shape, tokenizer, settings, head=HeadOptions(dropout=0.0))
    task.take_labels(data.label_names(), data.metrics)
    task.configure_model()
    task.to(settings.device)
    chosen = evenly(sorted(epoch, key=lambda rows: max(lengths[row] for row in rows)), GLUE_TIMED[settings.size])
    mixed = [row for rows in chosen for row in rows]
    Random(settings.seed).shuffle(mixed)
    collate = data.collate("train")
    ways = {
        way: [on(settings.device, collate([examples[row] for row in rows])) for rows in batches]
        for way, batches in ((RANDOM, _cut(mixed, GLUE_BATCH)), (GROUPED, chosen))
    }
    parameters = list(task.trainable_parameters().values())
    steps = {way: Steps(parameters, lambda batch: task.training_step(batch, 0), own) for way, own in ways.items()}
    checks = {"both have the same loss": _same_loss(steps)} if settings.exact else {}
    notes = [f"{len(mixed)} rows are timed, on {shape.model}; all rows are counted"]
    return Table(title, steps, "example", len(mixed), {TOKENS: counts}, checks, notes)


def instruction_tuning(settings: Settings) -> Iterator[Table]:
    """Count the padding of conversations, and time steps with a model shaped like Llama."""
    with given_by("llama_tokenizer"):
        tokenizer = tokenizer_of(settings.llama_tokenizer)
    options: Any = {"train_size": CONVERSATIONS, "validation_size": CONVERSATIONS // 10, "seed": settings.seed}
    data = UltraFeedback(settings.ultrafeedback_path, max_length=CHAT_LENGTH, micro_batch_size=PAIR, **options)
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("ultrafeedback_path"):
        data.setup("fit")
    examples, lengths = _examples(data, data.train_dataloader())
    pairs = _cut(Random(settings.seed).sample(range(len(examples)), len(examples)), PAIR)
    counts = {
        PADDED: _padded_tokens(pairs, lengths),
        f"padded to {CHAT_LENGTH}": float(CHAT_LENGTH * len(examples)),
        PACKED: float(sum(lengths)),
    }
    shape = shape_of("llama", settings)
    task = random_task(InstructionTuning, RED(), shape, tokenizer, settings)
    task.configure_model()
    task.to(settings.device)
    few = evenly(sorted(pairs, key=lambda rows: _padded_tokens([rows], lengths)), CHAT_TIMED[settings.size])
    chosen = [examples[row] for rows in few for row in rows]
    packs = balanced([data.length(row) for row in chosen], len(few))

    def plain(batch: dict[str, Any]) -> Tensor:
        mask = batch["attention_mask"]
        return loss_of_all_logits(task.backbone, batch["input_ids"], batch["labels"], attention_mask=mask)

    def ours(batch: dict[str, Any]) -> Tensor:
        return task.training_step(batch, 0)

    padded = [collate_padded([examples[row] for row in rows], tokenizer.pad_token_id) for rows in few]
    packed = [collate_packed([chosen[row] for row in rows]) for rows in packs]
    parameters = list(task.trainable_parameters().values())
    steps = {
        name: Steps(parameters, loss, [on(settings.device, batch) for batch in batches])
        for name, loss, batches in ((PADDED, plain, padded), (PACKED, ours, packed))
    }
    checks = {"both have the same loss": _same_loss(steps)} if settings.exact else {}
    title = f"{len(examples)} conversations in micro-batches of {PAIR}"
    notes = [f"{len(chosen)} conversations are timed, on {shape.model}; all are counted"]
    yield Table(title, steps, "example", len(chosen), {TOKENS: counts}, checks, notes)


def _examples(data: Any, loader: Any) -> tuple[list[Any], list[int]]:
    """Return the rows of a loader, and their lengths in tokens."""
    examples = [loader.dataset[index] for index in range(len(loader.dataset))]
    return examples, [data.length(row) for row in examples]


def _cut(order: Sequence[int], size: int) -> Batches:
    return [list(order[first : first + size]) for first in range(0, len(order), size)]


def _padded_tokens(batches: Batches, lengths: Sequence[int]) -> float:
    """Return the tokens of batches that are padded to their longest row."""
    return float(sum(len(rows) * max(lengths[row] for row in rows) for rows in batches))


def _same_loss(steps: dict[str, Steps]) -> bool:
    first, *others = (total_loss(way.loss, way.batches) for way in steps.values())
    return all(torch.allclose(other, first, rtol=1e-5, atol=0) for other in others)
