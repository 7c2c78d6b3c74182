"""Bytes that can be counted by hand."""

import torch
from torch import nn

from red_lightning.benchmark.memory import peak_bytes, saved_bytes

KB = 4 * 1000


def test_the_peak_is_the_most_that_is_held_at_once() -> None:
    start = torch.zeros(1000)
    two, one_by_one = peak_bytes(lambda: (start + 1) * 2, "cpu"), peak_bytes(lambda: ((start + 1), None)[1], "cpu")
    assert KB <= one_by_one < 1.1 * KB
    assert 2 * KB <= two < 2.1 * KB
    assert peak_bytes(lambda: [start.add_(1) for _ in range(5)], "cpu") < 0.1 * KB


def test_what_a_forward_pass_keeps_is_counted_once_and_without_weights() -> None:
    model = nn.Linear(10, 100, bias=False).requires_grad_(False)
    inputs = torch.randn(10, 10, requires_grad=True)

    def forward() -> torch.Tensor:
        return (torch.exp(model(inputs)) ** 2).sum()  # exp keeps its result, and so does the square: one storage

    assert saved_bytes(forward, model) == KB
    assert saved_bytes(forward, model.requires_grad_(True)) == KB  # the inputs were there before
    with torch.no_grad():
        assert saved_bytes(forward, model) == 0
