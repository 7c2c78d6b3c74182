"""The mean loss per label of a split."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """The sum of losses over the number of labels, of all batches and processes.

    torchmetrics' own ``MeanMetric`` either drops NaN or, told not to, forgets the weights.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    total: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("labels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, total: Tensor, labels: Tensor | int) -> None:
        """Add a batch.

        Args:
            total: The sum of its losses: floating point, a scalar.
            labels: How many there are.
        """
        # Not in place: Lightning resets a metric in inference mode after a test, and updates it elsewhere.
        self.total = self.total + total.detach()
        self.labels = self.labels + labels

    def compute(self) -> Tensor:
        """The mean: float32, a scalar (NaN if there were no labels)."""
        return self.total / self.labels
