"""Optimizer steps on some batches, without a framework."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Steps:
    """Training steps: on each batch the loss, its gradients, and AdamW.

    Args:
        parameters: What trains.
        loss: The loss of a batch, a scalar.
        batches: One for each step of a call.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], loss: Callable[[Any], Tensor], batches: Sequence[Any]
    ) -> None:
        self.parameters, self.loss, self.batches = list(parameters), loss, batches
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)

    def __call__(self) -> None:
        """Train."""
        for batch in self.batches:
            self.loss(batch).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def evenly(items: Sequence[Any], number: int) -> list[Any]:
    """So many of the items (or all of them, if they are fewer), at even distances."""
    number = min(number, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * number)] for index in range(number)]


def on(device: str, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
