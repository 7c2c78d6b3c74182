"""The mean loss of a split."""

import math

import pytest
import torch

from red_lightning.metrics import MeanLoss


def test_each_label_counts_the_same() -> None:
    metric = MeanLoss()
    for losses in ([1.0, 2.0, 6.0], [3.0], []):
        metric.update(torch.tensor(losses).sum(), len(losses))
    assert metric.compute().item() == pytest.approx(12 / 4)
    assert metric.compute().dtype == torch.float32


def test_what_is_no_number_is_not_hidden() -> None:
    metric = MeanLoss()
    metric.update(torch.tensor(1.0), 1)
    metric.update(torch.tensor(math.nan), 1)
    assert math.isnan(metric.compute())


def test_a_reset_in_inference_mode_does_not_bar_updates() -> None:
    metric = MeanLoss()
    with torch.inference_mode():
        metric.update(torch.tensor(4.0), 2)
        assert metric.compute() == 2
        metric.reset()
    metric.update(torch.tensor(3.0), 1)
    assert metric.compute() == 3
