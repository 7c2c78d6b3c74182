"""The optimizer and the learning-rate schedule of every task."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from red_lightning.errors import UsageError, nearest

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
    "SGD": lambda parameters, eps, fused, **options: torch.optim.SGD(parameters, **options),
}
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def check_names(optimizer: str, schedule: str) -> None:
    """Refuse unknown names before anything is loaded.

    Raises:
        UsageError: Names the nearest known one.
    """
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer '{optimizer}': {nearest(optimizer, OPTIMIZERS)}")
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule '{schedule}': {nearest(schedule, SCHEDULES)}")


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    name: str,
    learning_rate: float,
    weight_decay: float,
    epsilon: float,
    decay_towards: Literal["zero", "identity"] = "zero",
    scaled: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer of the parameters that train; its state is keyed by their names.

    Args:
        parameters: By name; those that end in ``scaling`` are scalings.
        name: A key of :data:`OPTIMIZERS`.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled for AdamW, an L2 penalty for the others.
        epsilon: Adam's epsilon.
        decay_towards: Where weight decay pulls a scaling: ``zero`` (the authors' code) or ``identity``, that is 1.
        scaled: Whether a gradient scaler is used (16-mixed): Lightning then clips no gradients of a fused optimizer.
    """
    fused = not scaled and all(parameter.device.type in ("cpu", "cuda") for parameter in parameters.values())
    optimizer = OPTIMIZERS[name](
        parameters.values(), lr=learning_rate, weight_decay=weight_decay, eps=epsilon, fused=fused
    )
    if decay_towards == "identity" and weight_decay:
        if name != "AdamW":
            raise UsageError(f"decay_towards: identity needs the optimizer AdamW, not {name}")
        scalings = [parameter for key, parameter in parameters.items() if key.endswith("scaling")]
        optimizer.register_step_post_hook(_PullTowardsOne(scalings))
    names = _Names(parameters)
    optimizer.register_state_dict_post_hook(names.save)
    optimizer.register_load_state_dict_pre_hook(names.load)
    return optimizer


def add_gradient(term: Tensor | None, parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradient of another term of the loss to those that there are; a skipped step has none.

    Args:
        term: A scalar; None if there is no other.
        parameters: What it depends on, and maybe others.
    """
    if term is None:
        return
    present = [parameter for parameter in parameters if parameter.grad is not None]
    if not present:
        return
    for parameter, gradient in zip(present, torch.autograd.grad(term, present, allow_unused=True), strict=True):
        if gradient is not None:
            parameter.grad.add_(gradient)  # type: ignore[union-attr]


class _Names:
    """Saves and loads an optimizer's state by parameter names; torch's own key is a position, which can change.

    Args:
        names: The names, in the order in which the optimizer holds the parameters.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def save(self, _: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return _rekey(state, dict(enumerate(self.names)))

    def load(self, _: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        stored = [name for group in state["param_groups"] for name in group["params"]]
        if unfit := sorted({str(name) for name in {*stored, *state["state"]} ^ set(self.names)} - set(self.names)):
            raise UsageError(f"the checkpoint's optimizer state holds '{unfit[0]}', which this run does not train")
        if missing := sorted(set(self.names) - set(stored)):
            raise UsageError(f"the checkpoint's optimizer state lacks '{missing[0]}', which this run trains")
        keyed = _rekey(state, {name: position for position, name in enumerate(self.names)})
        for group in keyed["param_groups"]:
            group["params"].sort()  # torch goes by their order
        return keyed


def _rekey(state: dict[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {keys[key]: value for key, value in state["state"].items()}, "param_groups": groups}


class _PullTowardsOne:
    """Adds back ``lr * decay``: AdamW's ``s * (1 - lr * decay)`` becomes a pull of ``s`` towards 1."""

    def __init__(self, scalings: Iterable[nn.Parameter]) -> None:
        self.scalings = list(scalings)

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]
        for scaling in self.scalings:
            if scaling.grad is None:  # the step was skipped
                continue
            scaling.add_(group["lr"] * group["weight_decay"])


def build_schedule(
    optimizer: torch.optim.Optimizer, name: str, total_steps: int, warmup_steps: int, warmup_ratio: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build a schedule that is entered once per optimizer step; with warm-up the first step has learning rate 0.

    Args:
        optimizer: The optimizer.
        name: A key of :data:`SCHEDULES`.
        total_steps: Optimizer steps of the whole run.
        warmup_steps: Steps over which the learning rate rises to its peak.
        warmup_ratio: The same as a share of the run, used if ``warmup_steps`` is 0; a fraction of a step is kept, as
            in the authors' code.
    """
    from transformers import get_scheduler  # slow to import: it brings peft

    warmup: Any = warmup_steps or warmup_ratio * total_steps
    return get_scheduler(SCHEDULES[name], optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)
