"""Training on E2E: rows without padding and a loss at the labels alone, against rows padded to 164 tokens.

The first ways have independent rows in a batch, as the authors' code. With shared sources, all references of a meaning
representation come in one batch, where it is read once: other rows share a batch then.
"""

from typing import Any

import torch
from torch import Tensor

from red_lightning.benchmark.e2e_rows import Plain, batches_of, computed, edited_task, folded, read_e2e
from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare, count
from red_lightning.benchmark.memory import peak_bytes
from red_lightning.benchmark.optimizer_steps import Steps, evenly
from red_lightning.benchmark.settings import Settings

BATCHES = {"tiny": 1, "small": 2, "paper": 20}
"""Size -> batches that are timed: at even distances of their tokens in an epoch."""
COUNTED = 400
"""Batches of an epoch whose tokens are counted."""
PLAIN = "padded to 164 tokens, all logits (the authors' way)"
WAYS: dict[str, dict[str, bool]] = {
    "padded to the longest row": {},
    "rows of like length": {"group_by_length": True},
    "packed": {"packing": True},
    "shared sources": {"share_sources": True},
}
"""Our ways, and the options of the data module that ask for them."""
GOALS = {"packed": Goal(3.2, 15), "shared sources": Goal(5.2, 15)}


def measure(settings: Settings) -> Case:
    """Count the tokens that are computed, and time steps with a model shaped like GPT-2.

    Args:
        settings: How to measure; ``e2e_path`` and ``gpt2_tokenizer`` say where data and tokenizer are.
    """
    data = read_e2e(settings)
    task, shape = edited_task(settings)
    plain = Plain(task, data, settings)
    number = BATCHES[settings.size]

    def ours(batch: dict[str, Any]) -> Tensor:
        return task.loss(batch)[0]

    slots: dict[str, float] = {}
    steps: dict[str, Steps] = {}
    same = True
    for name, options in WAYS.items():
        for option in ("group_by_length", "packing", "share_sources"):
            setattr(data, option, option in options)
        loader, collate = data.train_dataloader(), data.collate("train")
        made = [collate(rows) for rows in evenly(batches_of(loader), COUNTED)]
        slots[name] = sum(map(computed, made)) / len(made)
        epoch = sorted(evenly(batches_of(loader), COUNTED), key=lambda rows: computed(collate(rows)))
        chosen = evenly(epoch, number)
        batches = [folded(collate(rows), task.backbone, settings) for rows in chosen]
        if not options:  # the baseline takes the very same rows
            padded = [plain.batch(rows) for rows in chosen]
            steps[PLAIN] = Steps(plain.learned, plain.loss, padded)
            slots = {PLAIN: float(padded[0]["input_ids"].shape[1]), **slots}
        steps[name] = Steps(task.trainable_parameters().values(), ours, batches)
        expected = [plain.loss(plain.batch(rows), twice=False) for rows in chosen]
        same &= torch.allclose(
            torch.stack([ours(batch) for batch in batches]), torch.stack(expected), rtol=1e-5, atol=0
        )
    work = sum(map(len, chosen))
    title = f"batches of 10 rows; GPT-2, {shape.layers} layers of {shape.width}, vocabulary {shape.vocabulary:,}"
    rows: list[Row] = compare(
        title, [Variant(name, step, work) for name, step in steps.items()], settings, "example", True, GOALS
    )
    rows += count(title, slots, settings, "tokens computed for a row", gain=True)
    peaks = {name: float(peak_bytes(step, settings.device)) for name, step in steps.items()}
    rows += count(title, peaks, settings, "bytes at the peak", goals={"shared sources": Goal(0.2, 0.2)})
    checks = {"each way has the plain way's loss of its rows": same} if settings.dtype == "float32" else {}
    return Case("Training on E2E", rows, checks)
