"""Data-to-text generation (paper, section 4.3)."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from red_lightning.backbones.decoder_start import decoder_inputs
from red_lightning.backbones.loading import load_generator
from red_lightning.data import PairsDataModule
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.packed_loss import packed_losses
from red_lightning.efficiency.preparation import prepared
from red_lightning.efficiency.shared_sources import encoded_once, encodes_once, shared_losses
from red_lightning.errors import UsageError, nearest, require_range
from red_lightning.families.positions import positions_left
from red_lightning.generation import Decoding, decode
from red_lightning.methods import Method
from red_lightning.metrics import E2E_METRICS, MeanLoss, meteor_missing
from red_lightning.tasks.backbone_task import BackboneTask
from red_lightning.tasks.packing_support import require_packing, require_sharing, shares


class DataToText(BackboneTask):
    """Generate the reference of a source text, with a decoder or an encoder-decoder (paper, section 4.3).

    The loss is on the reference only. Validation logs the loss per reference token (``val_loss``) and its exponential
    (``val_perplexity``). Test decodes each distinct source and logs the official E2E metrics (``test_BLEU``, ...).

    Args:
        backbone: Hub id or folder of the pretrained model.
        method: Method that adapts the backbone.
        label_smoothing: Share of the target probability that is spread over the vocabulary, in training only.
        decoding: Decoding options of test and predict.
        metrics: Test metrics: BLEU, NIST, METEOR, ROUGE_L, CIDEr.
        **options: Those of :class:`BackboneTask`.
    """

    validation_metrics = ("val_loss", "val_perplexity")
    smaller_is_better = validation_metrics
    data_class = PairsDataModule

    def __init__(
        self,
        backbone: str,
        method: Method,
        label_smoothing: float = 0.0,
        decoding: Decoding = Decoding(),  # noqa: B008 - never changed
        metrics: list[str] = ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"],  # noqa: B006 - shows in --help
        **options: Any,
    ) -> None:
        for name in metrics:
            if name not in E2E_METRICS:
                raise UsageError(f"unknown metric '{name}': {nearest(name, E2E_METRICS)}")
        require_range("model.label_smoothing", label_smoothing, 0, 1)
        super().__init__(backbone, method, **options)
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        missing = meteor_missing() if "METEOR" in metrics else None
        self.missing_metrics = {"METEOR": missing} if missing else {}
        self.metric_names = list(metrics)
        self.validation_loss = MeanLoss()
        self.test_metrics = nn.ModuleDict(
            {name: E2E_METRICS[name]() for name in metrics if name not in self.missing_metrics}
        )

    def load_backbone(self, meta: bool = False) -> nn.Module:
        """Load a decoder or an encoder-decoder."""
        return prepared(load_generator, self.source, self.backbone_options, meta=meta)

    def setup(self, stage: str) -> None:
        """Refuse data of another kind, packing that would mix rows, and lengths without positions."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if data.packing:
            require_packing(self)
        if data.share_sources:
            require_sharing(self, data)
        data.shares = shares(self, data.max_source_length + data.max_target_length)
        limit, said = positions_left(self.source.config, self.method.virtual_tokens)
        if limit is None:
            return
        if self.encoder_decoder:
            self._require_positions_apart(data, limit, said)
            return
        wanted = {
            "data.max_target_length": data.max_target_length,
            "model.decoding.max_new_tokens": self.decoding.max_new_tokens,
        }
        for option, tokens in wanted.items():
            if data.max_source_length + tokens > limit:
                raise UsageError(
                    f"data.max_source_length {data.max_source_length} and {option} {tokens} make "
                    f"{data.max_source_length + tokens} tokens together, but the backbone '{self.source.name}' has "
                    f"{said}; lower one of them"
                )

    def _require_positions_apart(self, data: Any, limit: int, said: str) -> None:
        """Refuse lengths beyond the positions of the encoder or of the decoder, each of which counts from 0."""
        wanted = {
            "data.max_source_length": data.max_source_length,
            "data.max_target_length": data.max_target_length,
            "model.decoding.max_new_tokens": self.decoding.max_new_tokens,
        }
        for option, tokens in wanted.items():
            if tokens > limit:
                raise UsageError(f"{option} is {tokens}, but the backbone '{self.source.name}' has {said}; lower it")

    def record(self) -> dict[str, Any]:
        """The base's, and how texts are decoded."""
        return {**super().record(), "decoding": asdict(self.decoding)}

    def loss(self, batch: dict[str, Tensor], label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """The loss on the reference.

        Args:
            batch: ``input_ids``, ``attention_mask`` and ``labels``, each int64 of shape (rows, tokens); or what
                :func:`~red_lightning.data.packing.collate_packed` or one of the functions of
                :mod:`red_lightning.data.source_groups` returns.
            label_smoothing: Share of the target probability spread over the vocabulary.

        Returns:
            The mean cross-entropy per label in nats (float32 scalar), and the number of labels (int64 scalar).
        """
        labels = batch["labels"]
        losses = self._losses(batch, labels, label_smoothing)
        count = (labels >= 0).sum()
        return losses.sum() / count.clamp(min=1), count

    def _losses(self, batch: dict[str, Tensor], labels: Tensor, label_smoothing: float) -> Tensor:
        """The cross-entropy of each label, in the way that the batch was made for."""
        given = ("input_ids", "attention_mask", "position_ids", "predictors", "sources", "targets")
        known: dict[str, Any] = {name: batch[name] for name in given if name in batch}
        known |= {"places": batch.get("label_places"), "label_smoothing": label_smoothing}
        if "sources" in batch:
            return shared_losses(self.backbone, labels, **known)
        if "position_ids" in batch:
            return packed_losses(self.backbone, labels, **known)
        known["use_cache"] = False
        if not self.encoder_decoder:
            return label_losses(self.backbone, labels, **known)
        known["decoder_input_ids"] = decoder_inputs(self.backbone.config, labels)
        if "distinct" in batch and encodes_once(self.backbone, batch["input_ids"], batch["attention_mask"]):
            with encoded_once(self.backbone, batch["distinct"], batch["source_of"]):
                return label_losses(self.backbone, labels, **known)
        return label_losses(self.backbone, labels, **known)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One training batch."""
        loss, labels = self.loss(batch, self.label_smoothing)
        self.log_train_loss(loss, len(batch["labels"]))
        return self.share(loss * labels, batch, labels)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The loss of one validation batch, weighted by its labels: the mean does not depend on how rows share batches.

        The authors' code takes the mean of the batches' means instead.
        """
        loss, labels = self.loss(batch)
        self.validation_loss.update(loss * labels, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the whole split."""
        loss = self.validation_loss.compute()
        self.validation_loss.reset()
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_perplexity", torch.exp(loss))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Decode a batch of distinct sources and score it.

        Returns:
            ``rows``: what :meth:`predict_step` returns.
        """
        rows = self.predict_step(batch, batch_idx)
        predictions, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
        for metric in self._metrics().values():
            metric.update(predictions, references)
        return {"rows": rows}

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole split."""
        for name, metric in self._metrics().items():
            self.log(f"test_{name}", metric.compute())
            metric.reset()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Decode a batch of distinct sources.

        Returns:
            For each row its number, ``source``, ``prediction`` and ``references`` (an empty list if there are none).
        """
        texts = decode(self.backbone, batch["input_ids"], batch["attention_mask"], self.tokenizer, self.decoding)
        rows = zip(batch["row"], batch["text"], texts, batch["references"], strict=True)
        return [
            {"row": row, "source": source, "prediction": text, "references": references}
            for row, source, text, references in rows
            if row >= 0
        ]

    def _metrics(self) -> dict[str, Metric]:
        return {name: metric for name, metric in self.test_metrics.items() if isinstance(metric, Metric)}
