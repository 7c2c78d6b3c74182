"""What is learned keeps its dtype, whichever way the model around it is cast, and follows it to another device."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from red_lightning.compat.module_dtype import KeepsDtype

CASTS: list[Callable[[nn.Module], nn.Module]] = [
    lambda module: module.to(torch.bfloat16),
    lambda module: module.to(device="cpu", dtype=torch.float64),
    nn.Module.half,
    nn.Module.double,
    lambda module: module.type(torch.float16),
]


class Learned(KeepsDtype):
    def __init__(self) -> None:
        super().__init__()
        self.scaling = nn.Parameter(torch.tensor([1.002]))
        self.register_buffer("mask", torch.tensor([0.001]))


@pytest.mark.parametrize("cast", CASTS)
def test_a_cast_of_the_parent_leaves_it(cast: Callable[[nn.Module], nn.Module]) -> None:
    parent = nn.Sequential(nn.Linear(1, 1), Learned())
    cast(parent)
    assert parent[0].weight.dtype != torch.float32
    for tensor in (parent[1].scaling, parent[1].mask):
        assert tensor.dtype == torch.float32, f"Module._apply of torch {torch.__version__}: see compat/module_dtype.py"
    assert parent[1].scaling.item() == pytest.approx(1.002)


def test_it_moves_with_its_parent() -> None:
    parent = nn.Sequential(nn.Linear(1, 1), Learned())
    parent.to("meta", torch.bfloat16)
    assert parent[1].scaling.is_meta and parent[1].scaling.dtype == torch.float32
