"""Classification and regression scores of torchmetrics, with outputs that are no label."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

from red_lightning.errors import UsageError, nearest

# Each class metric has one class more than the labels: an output that is no label, which is never true.


class Accuracy(MulticlassAccuracy):
    """The share of rows whose class was predicted."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes + 1, average="micro")


class F1(MulticlassF1Score):
    """The F1 of class 1 of two, as GLUE has it; 0 if that class is neither true nor predicted anywhere."""

    def __init__(self, classes: int) -> None:
        _require_two("f1", classes)
        super().__init__(classes + 1, average="none")

    def compute(self) -> Tensor:
        """Score all rows of all processes: shape ()."""
        return super().compute()[1]


class MacroF1(MulticlassF1Score):
    """The unweighted mean of the F1 of all classes; 0 for one that is neither true nor predicted anywhere."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes + 1, average="none")

    def compute(self) -> Tensor:
        """Score all rows of all processes: shape ()."""
        return super().compute()[:-1].mean()


class Matthews(MulticlassMatthewsCorrCoef):
    """The Matthews correlation (for more than two classes: Gorodkin's); 0 where one side is constant."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes + 1)


class Confusion(MulticlassConfusionMatrix):
    """Counts of predictions by true class.

    Rows are the true classes, columns the predicted ones; the last column is for outputs that are no label.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes + 1)

    def compute(self) -> Tensor:
        """The counts of all rows of all processes: int64, shape (classes, classes + 1)."""
        return super().compute()[:-1]


class Correlation(Metric):
    """A correlation of predicted numbers with true ones; 0 where one side is constant, which leaves it undefined.

    Args:
        function: The correlation of two float64 vectors of shape (rows,).
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self._hold_nothing()

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        # An empty list is not gathered, which leaves the other processes waiting; an empty tensor is.
        self.rows.append(torch.empty(0, 2, device=self.device))

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add rows.

        Args:
            predictions: Floating point, shape (rows,).
            targets: Likewise.
        """
        self.rows.append(torch.stack([predictions.detach().float(), targets.float()], dim=1))

    def compute(self) -> Tensor:
        """Score all rows of all processes.

        Returns:
            float64, shape (); NaN where a prediction is not finite.
        """
        rows = self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)
        predictions, targets = rows.cpu().double().unbind(1)
        if not rows.isfinite().all():
            return torch.tensor(torch.nan, dtype=torch.float64)
        if len(set(predictions.tolist())) < 2 or len(set(targets.tolist())) < 2:
            return torch.tensor(0.0, dtype=torch.float64)
        return self.function(predictions, targets)


CLASS_METRICS: dict[str, Callable[[int], Metric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "matthews": Matthews,
}
"""Scores of class numbers (int64, shape (rows,)), by name; each is made for a number of classes."""

NUMBER_METRICS: dict[str, Callable[[], Metric]] = {
    "pearson": lambda: Correlation(pearson_corrcoef),
    "spearman": lambda: Correlation(spearman_corrcoef),
    "mse": MeanSquaredError,
    "rmse": lambda: MeanSquaredError(squared=False),
    "mae": MeanAbsoluteError,
}
"""Scores of numbers (float32, shape (rows,)), by name."""


def per_class(confusion: Tensor, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of rows of each class.

    Args:
        confusion: int64, shape (classes, classes + 1), as :class:`Confusion` gives it.
        labels: The names of the classes.

    Returns:
        ``precision``, ``recall``, ``f1`` (each 0 where undefined) and ``support`` (an int) by label.
    """
    hits = confusion.diagonal().double()
    true, predicted = confusion.sum(1), confusion.sum(0)[:-1]
    columns = {"precision": hits / predicted.clamp(min=1), "recall": hits / true.clamp(min=1)}
    columns["f1"] = 2 * hits / (true + predicted).clamp(min=1)
    rows = {name: column.tolist() for name, column in columns.items()}
    return {
        label: {**{name: values[index] for name, values in rows.items()}, "support": int(true[index])}
        for index, label in zip(range(len(confusion)), labels, strict=True)
    }


def check_metrics(names: Sequence[str], classes: int) -> None:
    """Refuse metrics that do not exist or do not fit the labels.

    Args:
        names: Of :data:`CLASS_METRICS` or :data:`NUMBER_METRICS`.
        classes: How many classes there are; 0 if labels are numbers.

    Raises:
        UsageError: Names the metric, and those that fit.
    """
    fitting: dict[str, Any] = {**(CLASS_METRICS if classes else NUMBER_METRICS)}
    for name in names:
        if name not in CLASS_METRICS and name not in NUMBER_METRICS:
            raise UsageError(f"unknown metric '{name}': {nearest(name, [*CLASS_METRICS, *NUMBER_METRICS])}")
        if name not in fitting:
            kinds = ("numbers", "classes") if classes else ("classes", "numbers")
            choice = " or ".join(other for other in fitting if other != "f1" or classes == 2)
            raise UsageError(f"the metric '{name}' measures {kinds[0]}, but the labels are {kinds[1]}; choose {choice}")
        if name == "f1":
            _require_two(name, classes)


def _require_two(name: str, classes: int) -> None:
    if classes != 2:
        raise UsageError(f"the metric '{name}' needs two classes, but there are {classes}; choose macro_f1")
