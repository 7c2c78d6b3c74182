"""Bytes that can be counted by hand."""

import os
import sys

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from red_lightning.benchmark.memory import held_bytes, peak_bytes, saved_bytes, without_lines

KB = 4 * 1000


def test_the_peak_is_the_most_that_is_held_at_once() -> None:
    start = torch.zeros(1000)
    two, one_by_one = peak_bytes(lambda: (start + 1) * 2, "cpu"), peak_bytes(lambda: ((start + 1), None)[1], "cpu")
    assert KB <= one_by_one < 1.1 * KB
    assert 2 * KB <= two < 2.1 * KB
    assert peak_bytes(lambda: [start.add_(1) for _ in range(5)], "cpu") < 0.1 * KB


def test_the_profiler_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: print("something is wrong", file=sys.stderr), "cpu")
    assert capfd.readouterr().err == "something is wrong\n"


def test_lines_are_dropped_by_their_beginning(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), without_lines("USDT:"):
        os.write(2, b"USDT: started\nan error\n USDT: is in the middle\n")
        raise KeyError
    assert capfd.readouterr().err == "an error\n USDT: is in the middle\n"


def test_what_a_forward_pass_keeps_is_counted_once_and_without_weights() -> None:
    model = nn.Linear(10, 100, bias=False).requires_grad_(False)
    inputs = torch.randn(10, 10, requires_grad=True)

    def forward() -> torch.Tensor:
        return (torch.exp(model(inputs)) ** 2).sum()  # exp keeps its result, and so does the square: one storage

    assert saved_bytes(forward, model) == KB
    assert saved_bytes(forward, model.requires_grad_(True)) == KB  # the inputs were there before
    with torch.no_grad():
        assert saved_bytes(forward, model) == 0


def test_what_is_held_is_counted_once() -> None:
    one, other = torch.zeros(1000), torch.zeros(10, dtype=torch.int8)
    assert held_bytes([one, one[:10], one.view(10, 100), other]) == KB + 10
    assert held_bytes([TwoTensor(one, torch.zeros(1000)), one]) == 2 * KB
