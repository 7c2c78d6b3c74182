"""E2E's validation loss: each meaning representation read once, against every row padded to 164 tokens."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from red_lightning.benchmark.e2e_rows import BATCH, Plain, batches_of, computed, edited_task, folded, read_e2e
from red_lightning.benchmark.measure import Case, Goal, Variant, compare, count
from red_lightning.benchmark.optimizer_steps import evenly
from red_lightning.benchmark.settings import Settings

ROWS = {"tiny": 32, "small": 64, "paper": 2048}
"""Size -> rows that are timed, about: whole batches at even distances of their tokens."""
PLAIN, PADDED, OURS = "padded to 164 tokens (the authors' way)", "padded to the longest row", "each source once"


def measure(settings: Settings) -> Case:
    """Count the tokens that are computed for the whole split, and time a part of it.

    Args:
        settings: How to measure; ``e2e_path`` and ``gpt2_tokenizer`` say where data and tokenizer are.
    """
    data = read_e2e(settings)
    task, shape = edited_task(settings)
    task.eval()
    plain = Plain(task, data, settings)
    plain.model.eval()
    once, shared = batches_of(data.val_dataloader()), data.collate("validation")
    data.shares = False
    beside, padded = batches_of(data.val_dataloader()), data.collate("validation")
    total = sum(map(len, once))
    slots = {
        PLAIN: float(total * (data.max_source_length + data.max_target_length)),
        PADDED: sum(computed(padded(rows)) * len(rows) for rows in beside),
        OURS: sum(computed(shared(rows)) * len(rows) for rows in once),
    }
    number = ROWS[settings.size] // data.eval_batch_size
    rows = [row for batch in evenly(sorted(once, key=lambda own: computed(shared(own))), number) for row in batch]
    cut = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    batches = [rows[first : first + data.eval_batch_size] for first in range(0, len(rows), data.eval_batch_size)]
    longest = sorted(rows, key=data.length)
    beside = [longest[first : first + data.eval_batch_size] for first in range(0, len(rows), data.eval_batch_size)]
    model = task.backbone

    def plainly(batch: dict[str, Any]) -> Tensor:
        return plain.loss(batch, twice=False)

    def ours(batch: dict[str, Any]) -> Tensor:
        return task.loss(batch)[0]

    ways: dict[str, tuple[Any, list[Any]]] = {
        PLAIN: (plainly, [plain.batch(own) for own in cut]),
        PADDED: (ours, [folded(padded(own), model, settings) for own in beside]),
        OURS: (ours, [folded(shared(own), model, settings) for own in batches]),
    }

    @torch.inference_mode()
    def total_loss(name: str) -> Tensor:
        loss, own = ways[name]
        return torch.stack([loss(batch) * (batch["labels"] >= 0).sum() for batch in own]).sum()

    variants = [Variant(name, partial(total_loss, name), len(rows)) for name in ways]
    title = f"{len(rows)} of {total:,} rows; GPT-2, {shape.layers} layers of {shape.width}"
    measured = compare(title, variants, settings, "row", gain=True, goals={OURS: Goal(5, 5)})
    measured += count(f"{total:,} rows", slots, settings, "tokens computed", gain=True)
    losses = torch.stack([total_loss(name) for name in ways])
    same = torch.allclose(losses, losses[0], rtol=1e-6, atol=0)
    checks = {"all ways have the same loss": same} if settings.dtype == "float32" else {}
    return Case("E2E's validation loss", measured, checks)
