"""What every method promises, checked on a tiny random backbone."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.methods.method import Method
from tests.backbones_zoo import build

INPUT = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def run(model: nn.Module) -> Tensor:
    extra = {"decoder_input_ids": INPUT} if model.config.is_encoder_decoder else {}
    return model(input_ids=INPUT, **extra)[0]


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return run(model)


def loss(model: nn.Module) -> Tensor:
    """A loss with a gradient in every column."""
    result = run(model).float()
    return (result * torch.linspace(-1, 1, result.numel()).view_as(result)).mean() + result.square().mean()


def train(model: nn.Module, parameters: dict[str, nn.Parameter], rate: float = 0.2, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(parameters.values(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def check(
    method: Method, family: str, folder: Path, dtype: torch.dtype = torch.float32, in_place: bool = False
) -> None:
    """Two steps, then: only what trains moved, the edits travel, and the backbone can be had back.

    Args:
        method: The method.
        family: The backbone's family.
        folder: Where the edits may go.
        dtype: Of the backbone.
        in_place: Whether the method trains the backbone's own weights.
    """
    model = build(family).to(dtype)
    before, plain, digest = snapshot(model), output(model), fingerprint(model)
    torch.manual_seed(1)
    parameters = method.apply(model)
    assert parameters and set(parameters) == {name for name, p in model.named_parameters() if p.requires_grad}
    first = snapshot(model)
    if getattr(method, "init_std", 0) == 0:
        assert torch.equal(output(model), plain)
    train(model, parameters)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, first[name])}
    assert changed <= set(parameters)
    assert len(changed) >= 0.9 * len(parameters)  # a key's bias has no gradient but rounding
    assert all(p.grad is not None and p.dtype == torch.float32 for p in parameters.values())
    edited = output(model)
    assert edited.dtype == dtype and not torch.equal(edited, plain)

    record = {"backbone": "tiny", "commit": None, "fingerprint": digest, "method": method.describe()}
    save_edits(folder, parameters, record)
    fresh = build(family).to(dtype)
    apply_edits(fresh, folder)
    assert torch.equal(output(fresh), edited)
    twin = copy.deepcopy(model)
    assert torch.equal(output(twin), edited)

    if not in_place:
        method.detach(model)
        assert torch.equal(output(model), plain)
        after = model.state_dict()
        assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
        assert not any(module._forward_hooks for module in model.modules())


def size(parameters: dict[str, nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())
