"""What a training step keeps between its forward and its backward pass, in bytes, and what it costs to keep less.

The numbers are exact: the storages that a forward pass made and that are there when it is over, without weights and
logits. The baseline is the authors' layer in the frozen model as transformers runs it.
"""

import gc
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare, count
from red_lightning.benchmark.memory import saved_bytes
from red_lightning.benchmark.optimizer_steps import Steps
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of, token_ids
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import shared_copy
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.methods import IA3, RED, LoRA, Method

AUTHORS, PLAIN, OURS = "the authors' layer", "RED, plain", "RED, selective_recomputation: true"
GOALS = {"gpt2": 0.45, "llama": 0.67, "roberta": 0.90}
"""Model -> what RED should keep of what the authors' layer keeps."""


def measure(settings: Settings) -> Case:
    """Count what methods keep on models shaped like GPT-2, Llama (in bfloat16) and RoBERTa, and time RED's step.

    Args:
        settings: How to measure. With ``size: paper`` the models are GPT-2 medium, Llama-2 7B and RoBERTa-base.
    """
    rows: list[Row] = []
    checks: dict[str, bool] = {}
    for model, goal in GOALS.items():
        own = replace(settings, dtype="bfloat16") if model == "llama" else settings
        title = f"{shape_of(model, own).title}, {own.dtype}"
        ids = token_ids(shape_of(model, own), own)
        models = _models(model, own)
        amounts = {name: saved_bytes(partial(_loss, adapted, ids), adapted) for name, adapted in models.items()}
        rows += count(f"{title}: kept", amounts, own, goals={OURS: Goal(goal, goal)})
        tolerance = 1e-6 if own.dtype == "float32" else 1e-2  # the plain GELU rounds each of its steps
        steps = {name: Steps(_trained(models[name]), partial(_loss, models[name]), [ids]) for name in (PLAIN, OURS)}
        checks[f"{title}: the loss is the same bit for bit, and the gradients to rounding"] = _same(
            steps, ids, tolerance
        )
        rows += compare(f"{title}: time", [Variant(name, step) for name, step in steps.items()], own)
        del models, steps
        gc.collect()
    notes = ["logits are left out: the loss reads the last position, or RoBERTa's first"]
    return Case("What a step keeps for its backward pass, and the time of RED's step", rows, checks, notes)


def _models(model: str, settings: Settings) -> dict[str, nn.Module]:
    """The model of each method; all but the last share the frozen weights."""
    backbone = build(model, settings)

    def adapted(method: Method) -> nn.Module:
        twin = shared_copy(backbone)
        method.apply(twin)
        return twin

    authors, ours = shared_copy(backbone), adapted(RED())
    apply_plain_edits(authors, [(site.module, site.width) for site in find_sites(authors, ["ffn"], None)])
    recompute_selectively(ours, always=True)
    return {
        AUTHORS: authors,
        PLAIN: adapted(RED()),
        OURS: ours,
        "LoRA, rank 8": adapted(LoRA()),
        "(IA)3": adapted(IA3()),
        "all weights": deepcopy(backbone).requires_grad_(True),
    }


def _loss(model: Any, ids: Tensor) -> Tensor:
    if model.config.model_type == "roberta":
        return model(input_ids=ids).last_hidden_state[:, 0].float().mean()
    return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float().mean()


def _trained(model: nn.Module) -> Iterable[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _same(steps: dict[str, Steps], ids: Tensor, tolerance: float) -> bool:
    """Whether losses are equal, and gradients to a part of their norm."""
    losses, gradients = [], []
    for step in steps.values():
        loss = step.loss(ids)
        losses.append(loss.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, step.parameters)]))
    apart = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    return torch.equal(*losses) and bool(apart <= tolerance)
