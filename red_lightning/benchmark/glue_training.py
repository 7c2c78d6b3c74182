"""GLUE training: rows of like length share a batch, against batches at random as in the authors' pipeline.

The authors' code draws batches at random and pads each to its longest row; many other scripts pad every row to 128
tokens. All compute the same loss of each row, and differ in the padding that they compute besides.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.benchmark.measure import Case, Row, Variant, compare, count
from red_lightning.benchmark.optimizer_steps import Steps, evenly, on
from red_lightning.benchmark.random_tasks import given_by, random_task, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import Shape, shape_of
from red_lightning.data import GLUE
from red_lightning.methods import RED
from red_lightning.tasks import Classification

TASKS = ("mrpc", "cola", "rte", "stsb")
"""The smaller tasks, of which padding is counted; steps are timed on the first."""
BATCH, LONGEST = 32, 128
BATCHES = {"tiny": 1, "small": 2, "paper": 20}
"""Size -> batches that are timed: of all lengths, at even distances in an epoch."""
PLAIN, FIXED, OURS = "batches at random (the authors' way)", f"every row padded to {LONGEST}", "grouped by length"

Batches = list[list[int]]


def measure(settings: Settings) -> Case:
    """Count the padding of four tasks, and time steps on one with a model shaped like RoBERTa.

    Args:
        settings: How to measure; ``glue_path`` and ``roberta_tokenizer`` say where data and tokenizer are.
    """
    with given_by("roberta_tokenizer"):
        tokenizer = tokenizer_of(settings.roberta_tokenizer)
    rows: list[Row] = []
    for name in reversed(TASKS):
        data = _data(name, tokenizer, settings)
        examples, lengths, epoch = _epoch(data)
        slots = {
            PLAIN: _slots(_cut(Random(settings.seed).sample(range(len(lengths)), len(lengths))), lengths),
            FIXED: float(LONGEST * len(lengths)),
            OURS: _slots(epoch, lengths),
            "without padding": float(sum(lengths)),
        }
        title = f"{name}: {len(lengths):,} rows, batches of {BATCH}"
        rows = [*count(title, slots, settings, "tokens computed in an epoch", gain=True), *rows]
    chosen = evenly(sorted(epoch, key=lambda batch: max(lengths[row] for row in batch)), BATCHES[settings.size])
    timed, same = _timed(data, examples, chosen, tokenizer, settings)
    checks = {"each row has the same loss however it is batched": same} if settings.dtype == "float32" else {}
    note = "few batches are timed, which are of more like lengths than those of an epoch, whose tokens are counted"
    return Case("GLUE rows in batches", [*timed, *rows], checks, [note])


def _data(name: str, tokenizer: Any, settings: Settings) -> GLUE:
    data = GLUE(
        name,
        settings.glue_path,
        global_batch_size=BATCH,
        max_length=LONGEST,
        group_by_length=True,
        seed=settings.seed,
    )
    data.connect(tokenizer, encoder_decoder=False)
    with given_by("glue_path"):
        data.setup("fit")
    return data


def _epoch(data: GLUE) -> tuple[Sequence[Any], list[int], Batches]:
    """The training rows, their lengths, and the rows of each batch of the first epoch."""
    loader = data.train_dataloader()
    examples = [loader.dataset[index] for index in range(len(loader.dataset))]  # type: ignore[arg-type]
    return examples, [data.length(row) for row in examples], list(loader.batches)


def _cut(order: Sequence[int]) -> Batches:
    return [list(order[first : first + BATCH]) for first in range(0, len(order), BATCH)]


def _slots(batches: Batches, lengths: Sequence[int]) -> float:
    """Tokens that are computed if each batch is padded to its longest row."""
    return float(sum(len(batch) * max(lengths[row] for row in batch) for batch in batches))


def _timed(
    data: GLUE, examples: Sequence[Any], chosen: Batches, tokenizer: Any, settings: Settings
) -> tuple[list[Row], bool]:
    """Steps on some batches and on the same rows at random, and whether the losses are equal."""
    shape = _shape(settings)
    head = HeadOptions(dropout=0.0)
    task = random_task(Classification, RED(), shape, tokenizer, settings, head=head)
    task.take_labels(data.label_names(), data.metrics)
    task.configure_model()
    task.to(settings.device)
    collate = data.collate("train")
    mixed = [row for batch in chosen for row in batch]
    Random(settings.seed).shuffle(mixed)

    def made(batches: Batches, fixed: bool = False) -> list[dict[str, Any]]:
        collated = [on(settings.device, collate([examples[row] for row in batch])) for batch in batches]
        return [_padded(batch, tokenizer.pad_token_id) for batch in collated] if fixed else collated

    ways = {PLAIN: made(_cut(mixed)), FIXED: made(_cut(mixed), fixed=True), OURS: made(chosen)}
    parameters = list(task.trainable_parameters().values())
    variants = [
        Variant(name, Steps(parameters, lambda batch: task.training_step(batch, 0), batches), len(mixed))
        for name, batches in ways.items()
    ]
    losses = [_losses(task.loss, batches) for batches in ways.values()]
    same = all(torch.allclose(found, losses[0], rtol=1e-5, atol=1e-5) for found in losses)
    title = f"{data.task_name}: {len(mixed)} rows, {len(chosen)} steps; RoBERTa, {shape.layers} of {shape.width}"
    return compare(title, variants, settings, "example", gain=True), same


def _shape(settings: Settings) -> Shape:
    shape = shape_of("roberta", settings)
    return replace(shape, width=384, heads=6, inner=1536) if settings.size == "small" else shape


def _padded(batch: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """A batch with every row padded to :data:`LONGEST`."""
    values = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0}
    return {
        name: torch.nn.functional.pad(value, (0, LONGEST - value.shape[1]), value=values[name])
        if name in values
        else value
        for name, value in batch.items()
    }


@torch.no_grad()
def _losses(loss: Callable[[dict[str, Any]], Tensor], batches: list[dict[str, Any]]) -> Tensor:
    """The loss of each row, in the order of the rows' numbers."""
    found = {row: value for batch in batches for row, value in zip(batch["row"], loss(batch), strict=True)}
    return torch.stack([found[row] for row in sorted(found)])
