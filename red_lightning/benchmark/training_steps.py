"""Training steps without a framework, and the cases that compare the steps of PEFT methods.

The baseline of the times is a frozen model with one trainable vector at the lowest site of RED. Every method that edits
there needs the same forward pass and the same backward pass down to it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.memory import saved_bytes
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.random_models import build, shape_of, token_ids
from red_lightning.data.collation import IGNORED
from red_lightning.editing.surgery import shared_copy
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.methods import IA3, RED, LoRA, Method

FLOOR, AUTHORS, OURS, SELECTIVE = "one vector", "the authors' layer", "RED", "RED, selective_recomputation"

MODELS = ("gpt2", "llama", "roberta")


class Steps:
    """Optimizer steps: loss, gradients and AdamW for each batch.

    Args:
        parameters: Trainable parameters.
        loss: Returns the loss of a batch, a scalar.
        batches: The batches of one call.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], loss: Callable[[Any], Tensor], batches: Sequence[Any]
    ) -> None:
        self.parameters, self.loss, self.batches = list(parameters), loss, batches
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)

    def __call__(self) -> None:
        """Train on each batch."""
        for batch in self.batches:
            self.loss(batch).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def agree(ours: Steps, plain: Steps, loss: float, gradient: float) -> bool:
    """Whether two ways to train have the same loss and gradients on their first batch.

    Args:
        ours: One way.
        plain: The other way, with the same trainable parameters.
        loss: Largest difference of the losses, as a share of the loss. 0 asks for equal bits.
        gradient: Largest norm of the difference of the gradients, as a share of their norm.
    """
    losses, gradients = [], []
    for steps in (ours, plain):
        losses.append(steps.loss(steps.batches[0]))
        found = torch.autograd.grad(losses[-1], steps.parameters)
        gradients.append(torch.cat([each.flatten().float() for each in found]))
    apart = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return bool(apart <= gradient) and torch.allclose(losses[0], losses[1], rtol=loss, atol=0)


@torch.no_grad()
def total_loss(loss: Callable[[Any], Tensor], batches: Iterable[dict[str, Any]]) -> Tensor:
    """Return the sum of the losses of all labels. ``loss`` returns the mean of a batch."""
    return torch.stack([loss(batch) * (batch["labels"] >= 0).sum() for batch in batches]).sum()


def evenly(items: Sequence[Any], number: int) -> list[Any]:
    """Return a number of items at even distances, or all items if there are fewer."""
    number = min(number, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * number)] for index in range(number)]


def on(device: str, batch: dict[str, Any]) -> dict[str, Any]:
    """Move the tensors of a batch to a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def step_time(settings: Settings) -> Iterator[Table]:
    """Time a step of each method: forward pass, backward pass and AdamW on one batch."""
    for name in MODELS:
        yield _step_time(name, settings)


def _step_time(name: str, settings: Settings) -> Table:
    models, loss = _models(name, settings), _loss(name, settings)
    at_once = 10 if settings.device == "cuda" else 1  # CUDA events resolve half a microsecond
    batches = [token_ids(shape_of(name, settings), settings)] * at_once
    steps = {way: Steps(_trainable(model), partial(loss, model), batches) for way, model in models.items()}
    checks = {}
    if settings.exact:  # float32 rounds at a different place
        checks["RED has the loss and the gradients of the authors' layer"] = agree(
            steps[OURS], steps[AUTHORS], 1e-6, 1e-5
        )
    return Table(shape_of(name, settings).title, steps, work=at_once, checks=checks)


def saved_activations(settings: Settings) -> Iterator[Table]:
    """Count the bytes that a forward pass keeps for the backward pass, without weights and logits.

    Llama is always in bfloat16, as in the paper.
    """
    for name in MODELS:
        yield _saved_activations(name, replace(settings, dtype="bfloat16") if name == "llama" else settings)


def _saved_activations(name: str, settings: Settings) -> Table:
    models = _models(name, settings)
    del models[FLOOR]
    ids = token_ids(shape_of(name, settings), settings)
    kept = {way: float(saved_bytes(partial(_loss_without_logits, model, ids), model)) for way, model in models.items()}
    tolerance = 1e-6 if settings.exact else 1e-2  # the standard GELU rounds each of its operations
    ours, plain = (
        Steps(_trainable(models[way]), partial(_loss_without_logits, models[way]), [ids]) for way in (SELECTIVE, OURS)
    )
    checks = {
        "recomputation leaves the loss bitwise equal, and the gradients to rounding": agree(ours, plain, 0, tolerance)
    }
    title = f"{shape_of(name, settings).title}, {settings.dtype}"
    return Table(title, counts={"bytes kept": kept}, checks=checks)


def _models(name: str, settings: Settings) -> dict[str, nn.Module]:
    """Return the model of each method. All but full fine-tuning share the frozen weights."""
    backbone = build(name, settings)
    authors = shared_copy(backbone)
    apply_plain_edits(authors)

    def adapted(method: Method) -> nn.Module:
        twin = shared_copy(backbone)
        method.apply(twin)
        return twin

    selective = adapted(RED())
    recompute_selectively(selective, always=True)
    return {
        FLOOR: adapted(RED(vectors="bias", layers=[0])),
        AUTHORS: authors,
        OURS: adapted(RED()),
        SELECTIVE: selective,
        "LoRA, rank 8": adapted(LoRA()),
        "IA3": adapted(IA3()),
        "full fine-tuning": deepcopy(backbone).requires_grad_(True),
    }


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _loss(name: str, settings: Settings) -> Callable[[Any, Tensor], Tensor]:
    """Return the cross-entropy of the next tokens; for RoBERTa that of two classes, with a fixed head."""
    shape = shape_of(name, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    head = torch.randn(shape.width, 2, generator=generator).to(settings.device)
    labels = torch.randint(2, (shape.rows,), generator=generator).to(settings.device)

    def of_classes(encoder: Any, ids: Tensor) -> Tensor:
        return cross_entropy(encoder(input_ids=ids).last_hidden_state[:, 0].float() @ head, labels)

    return of_classes if name == "roberta" else loss_of_all_logits


def loss_of_all_logits(model: Any, ids: Tensor, labels: Tensor | None = None, **inputs: Tensor) -> Tensor:
    """Return the cross-entropy of the next tokens, from the float32 logits of every position.

    Args:
        model: A decoder.
        ids: Tokens: int64, shape (rows, tokens).
        labels: The same, with :data:`~red_lightning.data.collation.IGNORED` where there is no loss. None for ``ids``.
        **inputs: Further inputs, such as ``attention_mask``.
    """
    logits = model(input_ids=ids, **inputs, use_cache=False).logits[:, :-1]
    labels = ids if labels is None else labels
    return cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)


def _loss_without_logits(model: Any, ids: Tensor) -> Tensor:
    """Return a loss of the last position's logits, or of RoBERTa's first hidden state."""
    if model.config.model_type == "roberta":
        return model(input_ids=ids).last_hidden_state[:, 0].float().mean()
    return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float().mean()
