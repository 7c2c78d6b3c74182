"""Schedules and optimizers against closed forms and against torch."""

import math

import pytest
import torch
from torch import nn

from red_lightning.errors import UsageError
from red_lightning.tasks.optimization import build_optimizer, build_schedule, check_names

STEPS = 20


def rates(name: str, warmup_steps: int = 0, warmup_ratio: float = 0.0, peak: float = 0.5) -> list[float]:
    """The learning rate of each optimizer step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = build_schedule(optimizer, name, STEPS, warmup_steps, warmup_ratio)
    seen = []
    for _ in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def after(name: str, step: int, warmup: float) -> float:
    """The share of the peak after the warm-up."""
    done = (step - warmup) / (STEPS - warmup)
    return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[name]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(
    ("steps", "ratio", "warmup"), [(0, 0.0, 0), (5, 0.0, 5), (0, 0.25, 5), (0, 0.06, 1.2), (4, 0.5, 4), (1, 0.0, 1)]
)
def test_schedules_are_their_closed_forms(name: str, steps: int, ratio: float, warmup: float) -> None:
    expected = [0.5 * (step / max(1, warmup) if step < warmup else after(name, step, warmup)) for step in range(STEPS)]
    assert rates(name, steps, ratio) == pytest.approx(expected)


def parameters(scaling: float = 3.0) -> dict[str, nn.Parameter]:
    return {
        "h.0.editor.scaling": nn.Parameter(torch.full((4,), scaling)),
        "h.0.editor.bias": nn.Parameter(torch.full((4,), 2.0)),
    }


def without_gradients(towards: str, steps: int, rate: float, decay: float) -> tuple[float, float]:
    """Scaling and bias after some steps in which only the decay acts."""
    trained = parameters()
    optimizer = build_optimizer(trained, "AdamW", rate, decay, 1e-8, towards)  # type: ignore[arg-type]
    for _ in range(steps):
        for parameter in trained.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    scaling, bias = (parameter[0].item() for parameter in trained.values())
    return scaling, bias


@pytest.mark.parametrize("steps", [1, 10, 400])
def test_decay_pulls_the_scaling_to_zero_or_to_one(steps: int) -> None:
    factor = (1 - 0.1 * 0.5) ** steps
    assert without_gradients("zero", steps, 0.1, 0.5) == pytest.approx((3 * factor, 2 * factor), abs=1e-5)
    assert without_gradients("identity", steps, 0.1, 0.5) == pytest.approx((1 + 2 * factor, 2 * factor), abs=1e-5)


def test_decay_towards_the_identity_follows_the_schedule() -> None:
    trained = parameters()
    optimizer = build_optimizer(trained, "AdamW", 0.1, 0.5, 1e-8, "identity")
    schedule = build_schedule(optimizer, "linear", 10, 2, 0.0)
    expected = 3.0
    for _ in range(10):
        rate = optimizer.param_groups[0]["lr"]
        for parameter in trained.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        schedule.step()
        expected += rate * 0.5 * (1 - expected)
    assert trained["h.0.editor.scaling"][0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_optimizers_are_torchs(name: str) -> None:
    ours, theirs = parameters(), parameters()
    options = {} if name == "SGD" else {"eps": 1e-6, "fused": True}
    reference = getattr(torch.optim, name)(theirs.values(), lr=0.1, weight_decay=0.2, **options)
    optimizer = build_optimizer(ours, name, 0.1, 0.2, 1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for key, parameter in ours.items():
            parameter.grad = torch.randn(4, generator=generator)
            theirs[key].grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for key, parameter in ours.items():
        assert torch.equal(parameter, theirs[key])


def test_a_gradient_scaler_gets_an_optimizer_that_can_be_clipped() -> None:
    """Lightning clips no gradients of one that unscales them by itself."""
    assert build_optimizer(parameters(), "AdamW", 0.1, 0.2, 1e-6)._step_supports_amp_scaling
    scaled = build_optimizer(parameters(), "AdamW", 0.1, 0.2, 1e-6, scaled=True)
    assert not getattr(scaled, "_step_supports_amp_scaling", False)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown optimizer 'adamw': did you mean 'AdamW'"):
        check_names("adamw", "linear")
    with pytest.raises(UsageError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        check_names("AdamW", "cosin")
    with pytest.raises(UsageError, match="needs the optimizer AdamW, not SGD"):
        build_optimizer(parameters(), "SGD", 0.1, 0.1, 1e-8, "identity")
    assert build_optimizer(parameters(), "SGD", 0.1, 0.0, 1e-8, "identity")  # nothing decays


def _named(*names: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.full((2,), float(len(name)))) for name in names}


def _step(parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = build_optimizer(parameters, "AdamW", 0.1, 0.0, 1e-8)
    sum(p.square().sum() * (1 + p[0].detach()) for p in parameters.values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return optimizer


def test_state_is_keyed_by_names() -> None:
    state = _step(_named("a", "bb")).state_dict()
    assert list(state["state"]) == state["param_groups"][0]["params"] == ["a", "bb"]
    turned = _named("bb", "a")  # another order, as another strategy may have it
    other = build_optimizer(turned, "AdamW", 0.1, 0.0, 1e-8)
    other.load_state_dict(state)
    for name, parameter in turned.items():
        torch.testing.assert_close(other.state[parameter]["exp_avg"], state["state"][name]["exp_avg"])


@pytest.mark.parametrize(("names", "says"), [(("a",), "holds 'bb', which"), (("a", "bb", "c"), "lacks 'c', which")])
def test_state_of_other_parameters_is_refused(names: tuple[str, ...], says: str) -> None:
    state = _step(_named("a", "bb")).state_dict()
    with pytest.raises(UsageError, match=says):
        build_optimizer(_named(*names), "AdamW", 0.1, 0.0, 1e-8).load_state_dict(state)
