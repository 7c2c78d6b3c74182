"""A training step of each method on one batch: forward, backward, AdamW.

The baseline is the frozen floor: the same model with one trained vector, at the lowest place that RED edits. A method
that edits there needs the forward pass and the backward pass down to it, so that what RED costs is what it takes beyond
the floor.
"""

import gc
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare
from red_lightning.benchmark.optimizer_steps import Steps
from red_lightning.benchmark.plain import apply_plain_edits
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of, token_ids
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import shared_copy
from red_lightning.methods import IA3, RED, LoRA, Method

FLOOR, PLAIN, OURS = "frozen floor (one vector)", "the authors' layer", "RED"
GOALS = {OURS: Goal(cpu=1.01, cuda=1.01)}

PEFT_TARGETS = {
    "gpt2": (["c_attn"], ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "llama": (["q_proj", "v_proj"], ["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "roberta": (["query", "value"], ["key", "value", "output.dense"], ["output.dense"]),
}
"""Model -> the linears of LoRA, those of (IA)3, and which of these scale their input: the papers' choices."""


def measure(settings: Settings) -> Case:
    """Compare the methods' steps on models shaped like GPT-2, Llama and RoBERTa.

    Args:
        settings: How to measure. With ``size: paper`` the models are GPT-2 medium, Llama-2 7B and RoBERTa-base.
    """
    rows: list[Row] = []
    checks: dict[str, bool] = {}
    notes = ["the methods share the frozen weights; all weights are trained in a copy of their own"]
    for model in PEFT_TARGETS:
        title = shape_of(model, settings).title
        steps = _steps(model, settings, notes)
        if settings.dtype == "float32":
            checks[f"{title}: RED has the loss and the gradients of the authors' layer"] = _same(
                steps[OURS], steps[PLAIN]
            )
        variants = [Variant(name, step, len(step.batches)) for name, step in steps.items()]
        rows += compare(title, variants, settings, goals=GOALS)
        del steps, variants
        gc.collect()
    return Case("Forward pass, backward pass and AdamW on one batch", rows, checks, list(dict.fromkeys(notes)))


def _steps(model: str, settings: Settings, notes: list[str]) -> dict[str, Steps]:
    """The step of each method; all but the last share the frozen weights."""
    backbone, loss = build(model, settings), _loss(model, settings)
    at_once = 10 if settings.device == "cuda" else 1  # an event's time is exact to half a microsecond
    batches = [token_ids(shape_of(model, settings), settings)] * at_once

    def steps(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Steps:
        return Steps(parameters, partial(loss, model), batches)

    def adapted(method: Method) -> Steps:
        twin = shared_copy(backbone)
        return steps(twin, method.apply(twin).values())

    plain = shared_copy(backbone)
    sites = [(site.module, site.width) for site in find_sites(plain, ["ffn"], None)]
    full = deepcopy(backbone).requires_grad_(True)
    return {
        FLOOR: adapted(RED(vectors="bias", layers=[0])),
        PLAIN: steps(plain, apply_plain_edits(plain, sites)),
        OURS: adapted(RED()),
        "LoRA, rank 8": adapted(LoRA()),
        "(IA)3": adapted(IA3()),
        **{name: steps(twin, _trained(twin)) for name, twin in _peft(model, backbone, notes).items()},
        "all weights": steps(full, full.parameters()),
    }


def _peft(model: str, backbone: nn.Module, notes: list[str]) -> dict[str, Any]:
    """What peft makes of the model, used directly."""
    try:
        from peft import IA3Config, LoraConfig, get_peft_model
    except ImportError:
        notes.append("peft is not installed, so that its LoRA and (IA)3 are left out")
        return {}
    linears, scaled, scaled_before = PEFT_TARGETS[model]
    by_rows = model == "gpt2"  # whose linears hold their weights transposed
    lora = LoraConfig(r=8, lora_alpha=8, target_modules=linears, fan_in_fan_out=by_rows)
    ia3 = IA3Config(target_modules=scaled, feedforward_modules=scaled_before, fan_in_fan_out=by_rows)
    return {
        "peft's LoRA, rank 8": get_peft_model(shared_copy(backbone), lora),
        "peft's (IA)3": get_peft_model(shared_copy(backbone), ia3),
    }


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _loss(model: str, settings: Settings) -> Callable[[Any, Tensor], Tensor]:
    """The mean cross-entropy of the next tokens; of RoBERTa that of two classes, by what a fixed head reads."""
    shape = shape_of(model, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    head = torch.randn(shape.width, 2, generator=generator).to(settings.device)
    labels = torch.randint(2, (shape.rows,), generator=generator).to(settings.device)

    def of_tokens(causal: Any, ids: Tensor) -> Tensor:
        logits = causal(input_ids=ids, use_cache=False).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    def of_classes(encoder: Any, ids: Tensor) -> Tensor:
        return cross_entropy(encoder(input_ids=ids).last_hidden_state[:, 0].float() @ head, labels)

    return of_classes if model == "roberta" else of_tokens


def _same(ours: Steps, plain: Steps) -> bool:
    """Whether the losses are equal, and the gradients to 1e-5 of their norm: float32 rounds at another place."""
    losses, gradients = [], []
    for steps in (ours, plain):
        loss = steps.loss(steps.batches[0])
        losses.append(loss.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, steps.parameters)]))
    apart = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return bool(apart <= 1e-5 and torch.allclose(losses[0], losses[1], rtol=1e-6))
