"""Text-to-text classification (paper, section 4.2; GLUE on T5): the model generates the label."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from red_lightning.backbones.decoder_start import decoder_inputs
from red_lightning.backbones.loading import load_generator
from red_lightning.data.collation import IGNORED, label_places, pad
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.preparation import prepared
from red_lightning.errors import UsageError, require_range
from red_lightning.generation import Decoding, decode
from red_lightning.methods import Method
from red_lightning.tasks.classifier import Answers, Batch, ClassifierTask, require_labels


class TextToTextClassification(ClassifierTask):
    """Generate the label of a text with an encoder-decoder, without a head (paper, section 4.2).

    The source is the text, or both texts of a pair, without a prefix (authors' code). Outputs that are no label count
    as wrong and are reported; the authors' code takes them for class 0. Outputs that are no number count as 0, as in
    the authors' code, and are reported too.

    Args:
        backbone: Hub id or folder of the pretrained encoder-decoder.
        method: Method that adapts the backbone.
        targets: Text of a class: its ``number`` (authors' code: 0, 1, 2) or its ``name``. Regression targets have one
            decimal (authors' code).
        max_new_tokens: Maximum number of generated tokens, greedily (authors' code: 5 with the start token).
        two_class_mnli: Score a three-class task as the authors' code does: class 1 against the rest, which includes
            outputs that are no label. Entailment taken for contradiction is then right. The scores are called
            ``two_class_accuracy`` and ``two_class_matthews``.
        metrics: For classes: accuracy, f1 (two classes), macro_f1, matthews. For numbers: pearson, spearman, mse. null
            uses those of the data set.
        **options: Those of :class:`BackboneTask`.
    """

    def __init__(
        self,
        backbone: str,
        method: Method,
        targets: Literal["number", "name"] = "number",
        max_new_tokens: int = 5,
        two_class_mnli: bool = False,
        metrics: list[str] | None = None,
        **options: Any,
    ) -> None:
        require_range("model.max_new_tokens", max_new_tokens, 2)
        super().__init__(backbone, method, metrics, **options)
        if not self.encoder_decoder:
            raise UsageError(
                f"the backbone '{backbone}' ({self.source.config.model_type}) is no encoder-decoder; "
                "use the task Classification, or a T5"
            )
        self.targets, self.two_class_mnli = targets, two_class_mnli
        self.score_prefix = "two_class_" if two_class_mnli else ""
        self.decoding = Decoding(num_beams=1, no_repeat_ngram_size=0, max_new_tokens=max_new_tokens)
        self.unreadable = SumMetric()

    def load_backbone(self, meta: bool = False) -> nn.Module:
        """Load the encoder-decoder."""
        return prepared(load_generator, self.source, self.backbone_options, meta=meta)

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take the labels; refuse a checkpoint that was taught to write something else for them."""
        super().recall(record)
        if (theirs := record.get("targets", self.targets)) != self.targets:
            raise UsageError(
                f"the checkpoint was taught to write each class's {theirs}, but model.targets is {self.targets}; "
                f"give --model.targets {theirs}"
            )

    def record(self) -> dict[str, Any]:
        """The base's, and what is written for a class."""
        return {**super().record(), "targets": self.targets, "max_new_tokens": self.decoding.max_new_tokens}

    def take_labels(self, labels: list[str], metrics: list[str]) -> None:
        """Take the labels; see that each can be written in so many tokens, and that no two are written alike."""
        super().take_labels(labels, metrics)
        if self.two_class_mnli and len(labels) != 3:
            raise UsageError(f"model.two_class_mnli is for tasks of three classes, but this one has {len(labels)}")
        unfit = [name for name in self.metrics if name not in ("accuracy", "matthews")]
        if self.two_class_mnli and unfit:
            raise UsageError(
                f"model.two_class_mnli makes two classes of three, but '{unfit[0]}' is a mean over three; "
                "choose model.metrics accuracy or matthews"
            )
        written = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in self._texts()]
        if (longest := max(map(len, written), default=0)) > self.decoding.max_new_tokens - 1:
            raise UsageError(
                f"a label takes {longest} tokens and EOS, more than model.max_new_tokens "
                f"{self.decoding.max_new_tokens}; raise it"
            )
        if len(set(map(tuple, written))) < len(written):
            raise UsageError("the backbone's tokenizer writes two labels alike; use model.targets number")
        for number, (text, tokens) in enumerate(zip(self._texts(), written, strict=True)):
            if self.read(self.tokenizer.decode(tokens, skip_special_tokens=True)) != number:
                raise UsageError(f"the backbone's tokenizer cannot write the label '{text}'; use model.targets number")

    def loss(self, batch: Batch, encoder: Any = None) -> Tensor:
        """The cross-entropy per target token of each row in nats: float32, shape (rows,)."""
        targets = self._targets(batch["label_values"] if "label_values" in batch else batch["labels"].tolist())
        encoder = encoder or self._encode(batch)
        losses = self._token_losses(encoder, batch["attention_mask"], targets)
        return losses.sum(1) / (targets != IGNORED).sum(1).to(losses.device, non_blocking=True)

    def answers(self, batch: Batch, encoder: Any = None, with_scores: bool = True) -> Answers:
        """What is written, greedily, read as a label; and the probability of each label among the labels."""
        encoder = encoder or self._encode(batch)
        inputs = (batch["input_ids"], batch["attention_mask"])
        texts = decode(self.backbone, *inputs, self.tokenizer, self.decoding, encoder)
        values = [self.read(text) for text in texts]
        dtype = torch.int64 if self.labels else torch.float32
        scores = self.label_scores(batch, encoder) if self.labels and with_scores else None
        return Answers(torch.tensor(values, dtype=dtype, device=batch["input_ids"].device), scores, texts)

    def loss_and_answers(self, batch: Batch) -> tuple[Tensor, Answers]:
        """Both from one pass of the encoder, without the probabilities, which cost passes of the decoder."""
        encoder = self._encode(batch)
        return self.loss(batch, encoder), self.answers(batch, encoder, with_scores=False)

    def read(self, text: str) -> float:
        """The class number or the number that a text means; the number of classes, or NaN, if it means none."""
        text = text.strip()
        if self.labels:
            texts = self._texts()
            return texts.index(text) if text in texts else len(texts)
        try:
            value = float(text)
        except ValueError:
            return math.nan
        return value if math.isfinite(value) else math.nan

    @torch.no_grad()
    def label_scores(self, batch: Batch, encoder: Any = None) -> Tensor:
        """How probable each label is among the labels, by the probability of writing it with EOS.

        Returns:
            float32, shape (rows, classes); each row sums to 1.
        """
        rows = len(batch["row"])
        encoder = encoder or self._encode(batch)
        likelihoods = []
        for label in range(len(require_labels(self.labels))):
            losses = self._token_losses(encoder, batch["attention_mask"], self._targets([label] * rows))
            likelihoods.append(-losses.sum(1))
        return torch.softmax(torch.stack(likelihoods, dim=1), dim=1)

    def measure(self, values: Tensor, labels: Tensor) -> None:
        """Count what could not be read, and give answers and labels to every metric."""
        lost = values == len(self.labels) if self.labels else values.isnan()
        self.unreadable.update(lost.sum())
        if self.two_class_mnli:
            values, labels = (values == 1).long(), (labels == 1).long()
        super().measure(values.nan_to_num(0.0) if not self.labels else values, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the loss, the metrics and the number of unreadable outputs of the whole split."""
        super().on_validation_epoch_end()
        self.log("val_unreadable", self.unreadable.compute())
        self.unreadable.reset()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split, and keep the details."""
        super().on_test_epoch_end()
        self.details["unreadable"] = int(self.unreadable.compute())
        self.unreadable.reset()

    def _texts(self) -> list[str]:
        """What is written for each class."""
        labels = require_labels(self.labels)
        return labels if self.targets == "name" else [str(number) for number in range(len(labels))]

    def _targets(self, labels: Sequence[float]) -> Tensor:
        """The tokens to write: int64, shape (rows, tokens), :data:`IGNORED` at padding; on the processor."""
        texts = self._texts()
        written = [texts[int(label)] if texts else f"{label:.1f}" for label in labels]
        tokens = self.tokenizer(written, add_special_tokens=False)["input_ids"]
        return pad([[*row, self.tokenizer.eos_token_id] for row in tokens], IGNORED)

    def _encode(self, batch: Batch) -> Any:
        encoder: Any = self.backbone.get_encoder()
        return encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])

    def _token_losses(self, encoder: Any, attention_mask: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each target token in nats, 0 at padding: float32, shape (rows, tokens)."""
        device = attention_mask.device
        places = label_places(targets).to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        shifted = decoder_inputs(self.backbone.config, targets)
        return label_losses(
            self.backbone,
            targets,
            places=places,
            encoder_outputs=encoder,
            attention_mask=attention_mask,
            decoder_input_ids=shifted,
            use_cache=False,
        )
