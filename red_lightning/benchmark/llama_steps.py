"""Training steps on random language models, the authors' way and the package's: what ``large_models.py`` compares."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.benchmark.memory import held_bytes, peak_bytes
from red_lightning.benchmark.optimizer_steps import Steps
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import Shape, token_ids
from red_lightning.data.collation import IGNORED
from red_lightning.editing.sites import find_sites
from red_lightning.efficiency.compiling import compile_blocks, require_compiler
from red_lightning.efficiency.fused_kernels import require_kernels
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.preparation import prepare
from red_lightning.methods import RED


class Batch(NamedTuple):
    """Tokens and labels, int64 of shape (rows, tokens), and the labels' places, int64 of shape (2, labels)."""

    ids: Tensor
    labels: Tensor
    places: Tensor


class Way(NamedTuple):
    """A model, and the steps that train it."""

    model: Any
    steps: Steps

    def peak(self, device: str) -> float:
        """The most bytes that a step needs: weights, what is learned, Adam's moments, and what it makes.

        Args:
            device: ``cpu`` or ``cuda``.
        """
        moments = [value for state in self.steps.optimizer.state.values() for value in state.values()]
        held = held_bytes((*self.model.state_dict().values(), *self.model.buffers(), *moments))
        return float(held + peak_bytes(self.steps, device))


def batch_of(shape: Shape, settings: Settings) -> Batch:
    """A batch of random tokens, each of which is a label but the first of a row, which nothing precedes."""
    ids = token_ids(shape, settings)
    labels = ids.clone()
    labels[:, 0] = IGNORED
    return Batch(ids, labels, (labels >= 0).nonzero().T)


def plain_way(model: Any, batch: Batch) -> Way:
    """Train a model as the authors do: with their layer, and the logits of all tokens."""
    sites = [(site.module, site.width) for site in find_sites(model, ["ffn"], None)]
    return _way(model, apply_plain_edits(model, sites), _loss_of_all_logits, batch)


def red_way(model: Any, options: BackboneOptions, batch: Batch) -> Way:
    """Train a model as the package does.

    Args:
        model: Quantised already, if it shall be.
        options: How the package would load it.
        batch: What it is trained on.

    Raises:
        UsageError: The machine lacks what the options need.
    """
    require_kernels(options.kernels, model.config.model_type, options.compile)
    require_compiler(options.compile)
    prepare(model, options)
    if options.compile:
        compile_blocks(model)
    return _way(model, RED().apply(model).values(), _loss_of_labels, batch)


def _way(model: Any, vectors: Iterable[nn.Parameter], loss: Callable[[Any, Batch], Tensor], batch: Batch) -> Way:
    """Steps from vectors that are away from their start, at numbers which bfloat16 has."""
    vectors, generator = list(vectors), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for vector in vectors:
            away = torch.randint(-8, 9, (vector.numel(),), generator=generator) / 64
            vector.add_(away.view_as(vector).to(vector))
    return Way(model, Steps(vectors, partial(loss, model), [batch]))


def _loss_of_all_logits(model: Any, batch: Batch) -> Tensor:
    logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch.ids[:, 1:].flatten())


def _loss_of_labels(model: Any, batch: Batch) -> Tensor:
    losses = label_losses(model, batch.labels, places=batch.places, input_ids=batch.ids, use_cache=False)
    return losses.sum() / batch.places.shape[1]


def same_gradients(way: Way, plain: Way, tolerance: float) -> bool:
    """Whether two ways have equal losses and gradients.

    Args:
        way: One of them.
        plain: The other.
        tolerance: How far apart they may be, as a share of the loss, and of the gradient's norm.
    """
    losses, gradients = [], []
    for steps in (way.steps, plain.steps):
        loss = steps.loss(steps.batches[0])
        losses.append(loss.detach())
        found = torch.autograd.grad(loss, steps.parameters)
        gradients.append(torch.cat([gradient.flatten().float() for gradient in found]))
    apart = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return bool(apart <= tolerance) and torch.allclose(losses[0], losses[1], rtol=tolerance)
