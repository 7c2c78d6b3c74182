"""Classification with a head on the backbone (paper, section 4.2; GLUE on RoBERTa)."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from red_lightning.backbones.classification_head import ClassificationHead, HeadOptions, pool
from red_lightning.backbones.loading import load_encoder
from red_lightning.data.label_names import spelled
from red_lightning.efficiency.preparation import prepared
from red_lightning.errors import UsageError, nearest
from red_lightning.methods import Method
from red_lightning.tasks.checkpoint_identity import RECORD
from red_lightning.tasks.classifier import Answers, Batch, ClassifierTask, require_labels

UNSCALED = (0.0, 1.0)
"""Mean and standard deviation of numbers that are learned as they are."""


class Classification(ClassifierTask):
    """Classify texts, or predict a number, with a head on the representation of an encoder or a decoder.

    The head is trained together with the method's parameters, at the same learning rate, and saved with them. Like the
    paper, parameter counts do not include it. Regression minimises the mean squared error.

    Args:
        backbone: Hub id or folder of the pretrained model.
        method: Method that adapts the backbone.
        head: Classification head. The default is the paper's for RoBERTa.
        class_weights: Weights of the classes in the training loss: ``balanced`` (inverse to the class frequency, 1 on
            average) or a number per class. null weights all classes equally.
        metrics: For classes: accuracy, f1 (two classes), macro_f1, matthews. For numbers: pearson, spearman, mse, rmse,
            mae. null uses those of the data set.
        **options: Those of :class:`BackboneTask`.
    """

    needs_eos = False
    unedited = "untrained head"

    def __init__(
        self,
        backbone: str,
        method: Method,
        head: HeadOptions = HeadOptions(),  # noqa: B008 - never changed
        class_weights: Literal["balanced"] | dict[str, float] | None = None,
        metrics: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, method, metrics, **options)
        self.head_options = head.resolved(self.source.config)
        self.class_weights = class_weights
        self.head: ClassificationHead | None = None
        self.register_buffer("loss_weights", None, persistent=False)
        self.target_scale: tuple[float, float] | None = None

    def load_backbone(self, meta: bool = False) -> nn.Module:
        """Load the hidden layers of an encoder or a decoder."""
        keep_pooler = self.head_options.pooling == "pooler"
        return prepared(load_encoder, self.source, self.backbone_options, keep_pooler, meta=meta)

    def build_head(self, meta: bool = False) -> None:
        """Make the head."""
        outputs = len(require_labels(self.labels)) or 1
        width = self.source.config.hidden_size
        with torch.device("meta" if meta else "cpu"):
            options = self.head_options
            self.head = ClassificationHead(width, outputs, bool(options.hidden), float(options.dropout or 0))

    def setup(self, stage: str) -> None:
        """Learn the labels from the data, their scale if they are numbers, and what errors on them count."""
        super().setup(stage)
        if stage == "fit" and self.target_scale is None:
            self.target_scale = getattr(getattr(self.trainer, "datamodule", None), "target_scale", UNSCALED)
        if stage == "fit" and self.class_weights is not None:
            data = getattr(self.trainer, "datamodule", None)
            if data is None:
                raise UsageError("model.class_weights needs a data module, which counts the classes; leave it out")
            self.loss_weights = _weights(self.class_weights, data.label_counts)

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take the labels and the scale of numbers that a checkpoint was trained for."""
        super().recall(record)
        self.target_scale = _scale(record)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that belongs to something else, and take the scale of its numbers."""
        super().on_load_checkpoint(checkpoint)
        self.target_scale = _scale(checkpoint[RECORD])

    def in_original_units(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters with a head that gives numbers in the unit of the data.

        A regression learns standardised numbers. The last layer of an adapter's head undoes that.
        """
        mean, deviation = self.target_scale or UNSCALED
        if self.labels or (mean, deviation) == UNSCALED:
            return dict(learned)
        last = {name: learned[f"head.out_proj.{name}"].double() * deviation for name in ("weight", "bias")}
        last["bias"] = last["bias"] + mean
        return {**learned, **{f"head.out_proj.{name}": value.float() for name, value in last.items()}}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """The head's outputs.

        Args:
            input_ids: int64, shape (rows, tokens).
            attention_mask: int64, shape (rows, tokens).
            token_type_ids: int64, shape (rows, tokens); used by backbones that tell the texts of a pair apart by them.

        Returns:
            Logits: float32, shape (rows, classes), or (rows, 1) for numbers.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and getattr(self.source.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids
        if getattr(self.source.config, "use_cache", False):
            inputs["use_cache"] = False  # type: ignore[assignment]
        pooling = self.head_options.pooling
        assert self.head is not None and pooling is not None
        return self.head(pool(self.backbone(**inputs), attention_mask, pooling))

    def loss(self, batch: Batch) -> Tensor:
        """The loss of each row, weighted by its class: float32, shape (rows,)."""
        loss = self._loss(self._logits(batch), batch["labels"])
        return loss if self.loss_weights is None else loss * self.loss_weights[batch["labels"]]

    def answers(self, batch: Batch) -> Answers:
        """The most probable class and the probabilities, or the number."""
        return self._answers(self._logits(batch))

    def loss_and_answers(self, batch: Batch) -> tuple[Tensor, Answers]:
        """Both from one pass."""
        logits = self._logits(batch)
        return self._loss(logits, batch["labels"]), self._answers(logits)

    def record(self) -> dict[str, Any]:
        """The base's, and the head's options."""
        mean, deviation = self.target_scale or UNSCALED
        scaled = not self.labels and (mean, deviation) != UNSCALED
        scale = {"target_scale": {"mean": mean, "deviation": deviation}} if scaled else {}
        return {**super().record(), "head": vars(self.head_options), **scale}

    def _logits(self, batch: Batch) -> Tensor:
        return self(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.labels:
            return cross_entropy(logits, labels, reduction="none")
        mean, deviation = self.target_scale or UNSCALED
        return mse_loss(logits[:, 0], (labels - mean) / deviation, reduction="none")

    def _answers(self, logits: Tensor) -> Answers:
        if not self.labels:
            mean, deviation = self.target_scale or UNSCALED
            return Answers(logits[:, 0] * deviation + mean)
        return Answers(logits.argmax(-1), torch.softmax(logits, dim=-1))


def _scale(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the mean and the standard deviation of the numbers of a training; older records have none."""
    known = record.get("target_scale", {})
    return known.get("mean", UNSCALED[0]), known.get("deviation", UNSCALED[1])


def _weights(given: Literal["balanced"] | dict[str, float], counts: dict[str, int]) -> Tensor:
    """What an error on each class counts: float32, shape (classes,)."""
    if not counts:
        raise UsageError("model.class_weights needs classes, but the labels are numbers; leave it out")
    if isinstance(given, dict):
        given = {spelled(name, [*counts], "model.class_weights"): weight for name, weight in given.items()}
        for name, weight in given.items():
            if name not in counts:
                raise UsageError(f"model.class_weights names '{name}', which is no class: {nearest(name, counts)}")
            if not 0 <= weight < float("inf"):
                raise UsageError(f"model.class_weights gives '{name}' the weight {weight}, but must be at least 0")
        return torch.tensor([float(given.get(name, 1.0)) for name in counts])
    total = sum(counts.values())
    return torch.tensor([total / (len(counts) * max(1, count)) for count in counts.values()])
