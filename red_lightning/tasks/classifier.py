"""Base of the classification tasks: labels, scores, and the outputs of test and predict."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torchmetrics import Metric

from red_lightning.data import ClassificationDataModule
from red_lightning.errors import UsageError
from red_lightning.families.positions import positions_left
from red_lightning.methods import Method
from red_lightning.metrics import CLASS_METRICS, NUMBER_METRICS, Confusion, MeanLoss, check_metrics, per_class
from red_lightning.tasks.backbone_task import RECORD, BackboneTask

Batch = dict[str, Any]


@dataclass
class Answers:
    """The output of a task for a batch.

    Attributes:
        values: int64 class indices (the number of classes where an output is no label), or float32 numbers; shape
            (rows,).
        scores: float32 probabilities, shape (rows, classes); None for numbers.
        outputs: Generated texts, if the task generates its labels.
    """

    values: Tensor
    scores: Tensor | None = None
    outputs: list[str] | None = None


class ClassifierTask(BackboneTask):
    """Base of the classification tasks. A subclass has a loss and answers.

    Validation logs the loss per row (``val_loss``) and each metric (``val_accuracy``, ...). The first metric is also
    logged as ``val_score``, negated if smaller is better. Test logs the same metrics.

    Args:
        backbone: Hub id or folder of the pretrained model.
        method: Method that adapts the backbone.
        metrics: For classes: accuracy, f1 (two classes), macro_f1, matthews. For numbers: pearson, spearman, mse, rmse,
            mae. null uses those of the data set.
        **options: Those of :class:`BackboneTask`.
    """

    validation_metrics = ("val_loss", "val_score", *(f"val_{name}" for name in (*CLASS_METRICS, *NUMBER_METRICS)))
    smaller_is_better = ("val_loss", "val_mse", "val_rmse", "val_mae")
    data_class = ClassificationDataModule
    score_prefix = ""
    """How the names of scores begin that are not measured as their names say."""

    def __init__(self, backbone: str, method: Method, metrics: list[str] | None = None, **options: Any) -> None:
        super().__init__(backbone, method, **options)
        self.metrics, self.metric_names = list(metrics or []), []
        self.labels: list[str] | None = None
        self.validation_loss = MeanLoss()
        self.scores = nn.ModuleDict()
        self.confusion: Confusion | None = None

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of each row: float32, shape (rows,)."""

    @abstractmethod
    def answers(self, batch: Batch) -> Answers:
        """What the model says about each row."""

    @abstractmethod
    def loss_and_answers(self, batch: Batch) -> tuple[Tensor, Answers]:
        """Both, for validation."""

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take the labels that a checkpoint was trained for, so that texts can be predicted without training data.

        Args:
            record: What :meth:`record` returned then.
        """
        super().recall(record)
        self.labels = record.get("labels")

    def setup(self, stage: str) -> None:
        """Learn the labels from the data, and build the metrics.

        Raises:
            UsageError: The data have other labels, no such metric, or longer texts than the backbone has positions.
        """
        super().setup(stage)
        data: ClassificationDataModule | None = getattr(self.trainer, "datamodule", None)
        if data is None:  # plain loaders; take_labels was called before
            require_labels(self.labels)
            return
        limit, said = positions_left(self.source.config, self.method.virtual_tokens)
        if limit is not None and data.max_length > limit:
            raise UsageError(f"data.max_length is {data.max_length}, but the backbone '{self.source.name}' has {said}")
        if data.labels is not None:
            self.take_labels(data.labels, data.metrics)

    def take_labels(self, labels: list[str], metrics: list[str]) -> None:
        """Take the classes in the order of their numbers (none for a regression), and the data set's metrics.

        Raises:
            UsageError: They are not those of the checkpoint, or a metric does not suit them.
        """
        if self.labels is not None and self.labels != labels:
            raise UsageError(_other_labels(self.labels, labels))
        self.labels = labels
        self.metrics = self.metrics or metrics
        check_metrics(self.metrics, len(labels))
        if not self.scores:
            make = (lambda name: CLASS_METRICS[name](len(labels))) if labels else (lambda name: NUMBER_METRICS[name]())
            self.scores = nn.ModuleDict({f"{self.score_prefix}{name}": make(name) for name in self.metrics})
            self.metric_names = list(self.scores)
            self.confusion = Confusion(len(labels)) if labels else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training batch."""
        loss = self.loss(batch)
        rows = real_rows(batch)
        self.log_train_loss(loss.detach().mean(), len(loss))
        return self.share(loss[:rows].sum(), batch, rows)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss and the answers of one validation batch."""
        loss, answers = self.loss_and_answers(batch)
        rows = real_rows(batch)
        self.validation_loss.update(loss[:rows].sum(), rows)
        self.measure(answers.values[:rows], batch["labels"][:rows])

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the metrics of the whole split."""
        self.log("val_loss", self.validation_loss.compute(), prog_bar=True)
        self.validation_loss.reset()
        scores = self._computed()
        for name, score in scores.items():
            self.log(f"val_{name}", score)
        first = self.metric_names[0]
        sign = -1 if f"val_{first}" in self.smaller_is_better else 1
        self.log("val_score", sign * scores[first], prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Answer a batch and score it.

        Returns:
            ``rows``: what :meth:`predict_step` returns.
        """
        answers = self.answers(batch)
        rows = real_rows(batch)
        self.measure(answers.values[:rows], batch["labels"][:rows])
        if self.confusion is not None:
            self.confusion.update(answers.values[:rows], batch["labels"][:rows])
        return {"rows": self._rows(batch, answers)}

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split, and keep the details: per class, and the confusion matrix."""
        for name, score in self._computed().items():
            self.log(f"test_{name}", score)
        self.details = {}
        if self.confusion is not None and self.labels:
            counts = self.confusion.compute()
            self.confusion.reset()
            self.details = {
                "labels": self.labels,
                "per_class": per_class(counts, self.labels),
                "confusion": counts.tolist(),
            }

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """Answer a batch.

        Returns:
            For each row its number, texts, ``label`` (a class, null where an output is no label, or a number),
            ``scores`` (the probability of each class) and, if it is known, the ``reference``.
        """
        return self._rows(batch, self.answers(batch))

    def measure(self, values: Tensor, labels: Tensor) -> None:
        """Give answers and labels to every metric."""
        for metric in self.scores.values():
            cast(Metric, metric).update(values, labels)

    def record(self) -> dict[str, Any]:
        """The base's, and the labels."""
        return {**super().record(), "labels": self.labels}

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint for other labels, before anything else is compared."""
        theirs = checkpoint.get(RECORD, {}).get("labels")
        if theirs is not None and self.labels is not None and theirs != self.labels:
            raise UsageError(_other_labels(theirs, self.labels))
        super().on_load_checkpoint(checkpoint)

    def _computed(self) -> dict[str, Tensor]:
        computed = {}
        for name, metric in self.scores.items():
            computed[name] = cast(Metric, metric).compute().float()
            cast(Metric, metric).reset()
        return computed

    def _rows(self, batch: Batch, answers: Answers) -> list[dict[str, Any]]:
        labels = batch["labels"].tolist() if "labels" in batch else None
        rows = []
        for index, number in enumerate(batch["row"][: real_rows(batch)]):
            row = {"row": number, **batch["texts"][index], "label": self._label(answers.values[index].item())}
            if answers.scores is not None:
                scores = answers.scores[index].tolist()
                row["scores"] = {name: round(p, 6) for name, p in zip(self.labels or (), scores, strict=True)}
            if answers.outputs is not None:
                row["output"] = answers.outputs[index]
            if labels is not None:
                row["reference"] = self._label(labels[index])
            rows.append(row)
        return rows

    def _label(self, value: float) -> str | float | None:
        """The name of a class number; a number as it is."""
        if not self.labels:
            return None if math.isnan(value) else round(value, 6)
        return self.labels[int(value)] if value < len(self.labels) else None


def _other_labels(theirs: list[str], ours: list[str]) -> str:
    return (
        f"the checkpoint was trained for {_described(theirs)}, but the data have {_described(ours)}; "
        "give the data that it was trained for, or another --ckpt_path"
    )


def _described(labels: list[str]) -> str:
    if not labels:
        return "numbers"
    return f"{len(labels)} classes ({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''})"


def real_rows(batch: Batch) -> int:
    """How many rows of a batch count; fillers come last."""
    return sum(row >= 0 for row in batch["row"])


def require_labels(labels: list[str] | None) -> list[str]:
    """The labels.

    Raises:
        UsageError: No data module and no checkpoint has said what they are.
    """
    if labels is None:
        raise UsageError("the labels are not known: give data with labels, or --ckpt_path")
    return labels
