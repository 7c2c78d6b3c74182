"""Losses on E2E: training with packed rows or shared sources, and validation with each source once.

The baseline is the authors' way: their layer, every row padded to 164 tokens, and the logits of all tokens.

The rows are E2E's, tokenized for GPT-2. A small model with GPT-2's vocabulary would spend most of its time in the head,
where the package saves most. So its vocabulary shrinks in the same proportion as its blocks, relative to GPT-2 medium,
and tokens are taken modulo that size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.memory import peak_bytes
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.random_models import SHAPES, Shape, given_by, random_task, shape_of, tokenizer_of
from red_lightning.benchmark.training_steps import Steps, evenly, loss_of_all_logits, on, total_loss
from red_lightning.data import E2E
from red_lightning.data.collation import IGNORED, collate_for_loss
from red_lightning.methods import RED
from red_lightning.tasks import DataToText

BATCH = 10
"""Rows of a training batch (paper, Table 11)."""
TIMED = {"tiny": 1, "small": 2, "paper": 20}
"""Size -> timed training batches, at even distances of their tokens in an epoch."""
VALIDATED = {"tiny": 32, "small": 64, "paper": 2048}
"""Size -> timed validation rows, about."""
COUNTED = 400
"""Training batches whose tokens are counted."""
AUTHORS, ONCE = "padded to 164 tokens, all logits (authors)", "each source once"
WAYS: dict[str, tuple[str, ...]] = {
    "padded to the longest row": (),
    "group_by_length": ("group_by_length",),
    "packing": ("packing",),
    "share_sources": ("share_sources",),
}
"""Variant -> options of the data module that are on."""

Rows = list[dict[str, Any]]


def e2e_training(settings: Settings) -> Iterator[Table]:
    """Count tokens and peak memory, and time steps, with a model shaped like GPT-2."""
    data, (task, shape) = read_e2e(settings), edited_task(settings)
    plain = Plain(task, data, settings)
    loss = partial(_loss, task)
    tokens = {AUTHORS: float(plain.longest)}
    steps: dict[str, Steps] = {}
    same = True
    for name, options in WAYS.items():
        for option in ("group_by_length", "packing", "share_sources"):
            setattr(data, option, option in options)
        collate = data.collate("train")
        sample = sorted(evenly(_batches(data.train_dataloader()), COUNTED), key=lambda rows: _per_row(collate(rows)))
        tokens[name] = sum(_per_row(collate(rows)) for rows in sample) / len(sample)
        chosen = evenly(sample, TIMED[settings.size])
        padded = [plain.batch(rows) for rows in chosen]
        if not options:
            steps[AUTHORS] = Steps(plain.learned, plain.loss, padded)
        batches = [_small(collate(rows), plain.model, settings) for rows in chosen]
        steps[name] = Steps(task.trainable_parameters().values(), loss, batches)
        same &= _equal([loss(batch) for batch in batches], [plain.loss(batch) for batch in padded], 1e-5)
    peaks = {name: float(peak_bytes(step, settings.device)) for name, step in steps.items()}
    yield Table(
        f"batches of {BATCH} rows; {shape.model}, vocabulary {shape.vocabulary:,}",
        steps,
        "example",
        sum(map(len, chosen)),
        {"tokens computed for a row": tokens, "bytes at the peak": peaks},
        {"each variant has the loss of the authors' way": same} if settings.exact else {},
    )


def e2e_evaluation(settings: Settings) -> Iterator[Table]:
    """Count the tokens of the validation split, and time the loss of a part of it."""
    data, (task, shape) = read_e2e(settings), edited_task(settings)
    task.eval()
    plain = Plain(task, data, settings)
    plain.model.eval()
    size, collate = data.eval_batch_size, data.collate("validation")
    batches = _batches(data.val_dataloader())
    total = sum(map(len, batches))
    computed = sum(_per_row(collate(rows)) * len(rows) for rows in batches)
    sample = evenly(sorted(batches, key=lambda rows: _per_row(collate(rows))), VALIDATED[settings.size] // size)
    rows = [row for batch in sample for row in batch]
    ways: dict[str, tuple[Any, list[Any]]] = {
        AUTHORS: (plain.loss, [plain.batch(rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)]),
        ONCE: (partial(_loss, task), [_small(collate(own), plain.model, settings) for own in sample]),
    }
    same = _equal([total_loss(*ways[ONCE])], [total_loss(*ways[AUTHORS])], 1e-6)
    yield Table(
        f"{len(rows)} of {total:,} rows; {shape.model}",
        {name: partial(total_loss, *way) for name, way in ways.items()},
        "row",
        len(rows),
        {f"tokens computed for {total:,} rows": {AUTHORS: float(total * plain.longest), ONCE: computed}},
        {"both have the same loss": same} if settings.exact else {},
    )


def read_e2e(settings: Settings, **options: Any) -> E2E:
    """Read and tokenize E2E for a backbone that can share sources.

    Args:
        settings: Paths of data and tokenizer.
        **options: Options of the data module.
    """
    data = E2E(settings.e2e_path, global_batch_size=BATCH, seed=settings.seed, **options)
    with given_by("gpt2_tokenizer"):
        data.connect(tokenizer_of(settings.gpt2_tokenizer), encoder_decoder=False)
    with given_by("e2e_path"):
        data.setup("fit")
    data.shares = True
    return data


def edited_task(settings: Settings) -> tuple[DataToText, Shape]:
    """Return a task with RED and a random backbone in training mode, and the backbone's shape."""
    shape, medium = shape_of("gpt2", settings), SHAPES["paper"]["gpt2"]
    if settings.size == "small":
        shape = replace(shape, layers=4)
    share = shape.layers * shape.width / (medium.layers * medium.width)
    shape = replace(shape, vocabulary=round(medium.vocabulary * share))
    task = random_task(DataToText, RED(), shape, tokenizer_of("quickstart"), settings, metrics=["BLEU"])
    task.configure_model()
    return task.to(settings.device), shape


class Plain:
    """The authors' way: their layer, and every row padded to the maximum length.

    Args:
        task: Has the backbone, which is made a second time.
        data: Has the maximum lengths.
        settings: The device.
    """

    def __init__(self, task: DataToText, data: E2E, settings: Settings) -> None:
        self.model: Any = task.load_backbone().to(settings.device).train()
        self.learned = apply_plain_edits(self.model)
        self.longest, self.settings = data.max_source_length + data.max_target_length, settings

    def batch(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pad rows on the right. They need no attention mask."""
        made = collate_for_loss(rows, 0, encoder_decoder=False)
        missing = self.longest - made["labels"].shape[1]
        ids, labels = (pad(made[name], (0, missing), value=v) for name, v in (("input_ids", 0), ("labels", IGNORED)))
        return _small({"input_ids": ids, "labels": labels}, self.model, self.settings)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a :meth:`batch` from the logits of all tokens."""
        return loss_of_all_logits(self.model, batch["input_ids"], batch["labels"])


def _loss(task: DataToText, batch: dict[str, Any]) -> Tensor:
    return task.loss(batch)[0]


def _batches(loader: Any) -> list[Rows]:
    return [[loader.dataset[row] for row in rows] for rows in loader.batch_sampler]


def _small(batch: dict[str, Any], model: Any, settings: Settings) -> dict[str, Any]:
    """Move a batch to the device, with its tokens modulo the vocabulary."""
    labels, size = batch["labels"], model.config.vocab_size
    tokens = {"input_ids": batch["input_ids"] % size, "labels": torch.where(labels >= 0, labels % size, labels)}
    return on(settings.device, {**batch, **tokens})


def _per_row(batch: dict[str, Any]) -> float:
    """Return the tokens that are computed for each row of the data in a batch."""
    return float(batch["input_ids"].numel() / len(batch["row"]))


def _equal(ours: list[Tensor], plain: list[Tensor], tolerance: float) -> bool:
    return torch.allclose(torch.stack(ours), torch.stack(plain), rtol=tolerance, atol=0)
