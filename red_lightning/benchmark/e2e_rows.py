"""E2E's rows for the cases that train and evaluate on them, and a model whose head has its usual share of the work.

The rows are E2E's own, tokenized by GPT-2's tokenizer. A small model with GPT-2's vocabulary would spend most of its
time in the head, where the package saves most. So its vocabulary is as much smaller as its blocks are than those of
GPT-2 medium, and tokens are taken modulo that: only how many there are matters here.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from red_lightning.benchmark.optimizer_steps import on
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.random_tasks import given_by, random_task, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import SHAPES, Shape, shape_of
from red_lightning.data import E2E
from red_lightning.data.collation import IGNORED, collate_for_loss
from red_lightning.editing.sites import find_sites
from red_lightning.methods import RED
from red_lightning.tasks import DataToText

BATCH = 10
"""Rows of a batch (paper, Table 11)."""


def read_e2e(settings: Settings, **options: Any) -> E2E:
    """E2E, read and tokenized, for a backbone that can share sources.

    Args:
        settings: ``e2e_path`` and ``gpt2_tokenizer`` say where data and tokenizer are.
        **options: Those of the data module.
    """
    data = E2E(settings.e2e_path, global_batch_size=BATCH, seed=settings.seed, **options)
    with given_by("gpt2_tokenizer"):
        data.connect(tokenizer_of(settings.gpt2_tokenizer), encoder_decoder=False)
    with given_by("e2e_path"):
        data.setup("fit")
    data.shares = True
    return data


def batches_of(loader: Any) -> list[list[dict[str, Any]]]:
    """The rows of each batch of a loader."""
    return [[loader.dataset[row] for row in rows] for rows in loader.batch_sampler]


def edited_task(settings: Settings) -> tuple[DataToText, Shape]:
    """A data-to-text task with RED, its backbone random and in training mode, and the backbone's shape."""
    shape, medium = shape_of("gpt2", settings), SHAPES["paper"]["gpt2"]
    if settings.size == "small":
        shape = replace(shape, layers=4)
    share = shape.layers * shape.width / (medium.layers * medium.width)
    shape = replace(shape, vocabulary=round(medium.vocabulary * share))
    task = random_task(DataToText, RED(), shape, tokenizer_of("quickstart"), settings, metrics=["BLEU"])
    task.configure_model()
    return task.to(settings.device), shape


class Plain:
    """The authors' way: their edit, and every row padded to the longest that there may be.

    Args:
        task: Its backbone is built anew.
        data: It says how long rows may be.
        settings: The device.
    """

    def __init__(self, task: DataToText, data: E2E, settings: Settings) -> None:
        self.model: Any = task.load_backbone().to(settings.device).train()
        sites = [(site.module, site.width) for site in find_sites(self.model, ["ffn"], None)]
        self.learned = apply_plain_edits(self.model, sites)
        self.data, self.settings = data, settings

    def batch(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Padded rows; there is no attention mask, for padding is on the right."""
        made = collate_for_loss(rows, 0, encoder_decoder=False)
        missing = self.data.max_source_length + self.data.max_target_length - made["labels"].shape[1]
        ids, labels = (pad(made[name], (0, missing), value=v) for name, v in (("input_ids", 0), ("labels", IGNORED)))
        return folded({"input_ids": ids, "labels": labels}, self.model, self.settings)

    def loss(self, batch: dict[str, Tensor], twice: bool = True) -> Tensor:
        """The loss of all logits.

        Args:
            batch: What :meth:`batch` returned.
            twice: Let the model compute a loss of its own before, as they do in training.
        """
        labels = batch["labels"]
        logits = self.model(input_ids=batch["input_ids"], labels=labels if twice else None, use_cache=False).logits
        return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)


def folded(batch: dict[str, Any], model: Any, settings: Settings) -> dict[str, Any]:
    """A batch on the device, its tokens modulo the vocabulary."""
    labels, size = batch["labels"], model.config.vocab_size
    tokens = {"input_ids": batch["input_ids"] % size, "labels": torch.where(labels >= 0, labels % size, labels)}
    return on(settings.device, {**batch, **tokens})


def computed(batch: dict[str, Any]) -> float:
    """Tokens that are computed for each row of the data in a batch."""
    return batch["input_ids"].numel() / len(batch["row"])
