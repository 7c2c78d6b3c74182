"""Instruction tuning (paper, section 4.4)."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.loading import load_generator
from red_lightning.backbones.sharding import generates_in_step
from red_lightning.data import ConversationsDataModule
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.packed_loss import packed_losses
from red_lightning.efficiency.preparation import prepared
from red_lightning.errors import UsageError
from red_lightning.families.positions import positions_left
from red_lightning.generation import Decoding, decode
from red_lightning.methods import Method
from red_lightning.metrics import MeanLoss
from red_lightning.tasks.backbone_task import BackboneTask
from red_lightning.tasks.packing_support import require_packing

Batch = Mapping[str, Any]


class InstructionTuning(BackboneTask):
    """Answer instructions with a decoder (paper, section 4.4). The loss is on the tokens that have labels.

    Every label has the same weight, independent of batches, micro-batches and processes. Validation and test
    log the loss per label in nats (``val_loss``) and its exponential (``val_perplexity``). Predict generates answers.

    Args:
        backbone: Hub id or folder of the pretrained model.
        method: Method that adapts the backbone.
        decoding: Decoding options. The default is greedy, at most 768 new tokens. The paper's config adds a repetition
            penalty of 1.1 and allows no 5-gram twice.
        **options: Those of :class:`BackboneTask`.
    """

    validation_metrics = ("val_loss", "val_perplexity")
    smaller_is_better = validation_metrics
    data_class = ConversationsDataModule

    def __init__(
        self,
        backbone: str,
        method: Method,
        decoding: Decoding = Decoding(max_new_tokens=768),  # noqa: B008 - never changed
        **options: Any,
    ) -> None:
        super().__init__(backbone, method, **options)
        if self.encoder_decoder:
            raise UsageError(
                f"the backbone '{backbone}' is an encoder-decoder ({self.source.config.model_type}), but "
                "InstructionTuning continues a conversation with a decoder; use DataToText"
            )
        self.decoding = decoding
        self.stop_ids: list[int] = []
        self.metric_names = ["perplexity", "loss"]
        self.mean_loss = MeanLoss()

    def load_backbone(self, meta: bool = False) -> nn.Module:
        """Load a decoder."""
        return prepared(load_generator, self.source, self.backbone_options, meta=meta)

    def setup(self, stage: str) -> None:
        """Refuse data of another kind, packing that would mix examples, and lengths without positions."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        self.stop_ids = data.stop_ids
        if data.packing:
            require_packing(self)
        limit, said = positions_left(self.source.config, self.method.virtual_tokens)
        if limit is None:
            return
        what, tokens = ("data.max_length is", data.max_length)
        if stage == "predict":
            what, tokens = "the longest prompt has", data.longest_prompt
        if tokens > limit - (stage == "predict"):
            raise UsageError(
                f"{what} {tokens}{' tokens' * (stage == 'predict')}, but the backbone '{self.source.name}' has "
                f"{said}; {'shorten it' if stage == 'predict' else 'lower it'}"
            )

    def record(self) -> dict[str, Any]:
        """The base's, and how texts are decoded."""
        return {**super().record(), "decoding": asdict(self.decoding)}

    def token_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The cross-entropy of each label.

        Args:
            batch: ``input_ids`` and ``labels`` (negative where there is no loss), each int64 of shape (rows, tokens),
                and an ``attention_mask`` or, for packed rows, ``position_ids`` of that shape.

        Returns:
            The losses in nats, 0 where there is no label (float32), and whether there is one (bool), each of shape
            (rows, tokens).
        """
        labels, places, ids = batch["labels"], batch.get("label_places"), batch["input_ids"]
        if "position_ids" in batch:
            losses = packed_losses(self.backbone, labels, ids, batch["position_ids"], places)
        else:
            mask = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
            losses = label_losses(self.backbone, labels, places=places, input_ids=ids, use_cache=False, **mask)
        return losses, labels >= 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One training micro-batch."""
        losses, counted = self.token_losses(batch)
        labels = counted.sum().clamp(min=1)
        total = losses.sum()
        self.log_train_loss(total.detach() / labels, len(batch["labels"]))
        return self.share(total, batch, labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the losses of one validation batch."""
        losses, counted = self.token_losses(batch)
        self._add(losses, counted)

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the whole split."""
        self._log_loss("val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Add the losses of one test batch.

        Returns:
            ``rows``: for each row its number, its ``loss`` per label in nats, and its number of labels (``tokens``).
        """
        losses, counted = self.token_losses(batch)
        self._add(losses, counted)
        tokens = counted.sum(1)
        rows = zip(batch["row"], (losses.sum(1) / tokens.clamp(min=1)).tolist(), tokens.tolist(), strict=True)
        return {"rows": [{"row": row, "loss": loss, "tokens": count} for row, loss, count in rows if row >= 0]}

    def on_test_epoch_end(self) -> None:
        """Log the loss of the whole split."""
        self._log_loss("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """Answer a batch of prompts.

        Returns:
            For each row its number, ``prompt`` and ``answer``.
        """
        rows = zip(batch["row"], batch["text"], self(batch), strict=True)
        return [{"row": row, "prompt": prompt, "answer": answer} for row, prompt, answer in rows if row >= 0]

    def forward(self, batch: Batch) -> list[str]:
        """Answer a batch of prompts; where processes share the backbone's weights, all of them must do so.

        Args:
            batch: ``input_ids`` and ``attention_mask``: int64, shape (rows, tokens), padded on the left.
        """
        lengths: list[int] = batch["attention_mask"].sum(1).tolist()
        rooms = list(map(self._room, lengths))
        if generates_in_step(self.backbone):  # all processes must decode as often
            rooms = [min(rooms)] * len(rooms)
        texts: dict[int, str] = {}
        for room in sorted(set(rooms)):
            rows = [row for row, own in enumerate(rooms) if own == room]
            tokens = max(lengths[row] for row in rows)
            inputs = batch["input_ids"][rows, -tokens:], batch["attention_mask"][rows, -tokens:]
            decoding = replace(self.decoding, max_new_tokens=room)
            found = decode(self.backbone, *inputs, self.tokenizer, decoding, stop_ids=self.stop_ids)
            texts.update(zip(rows, found, strict=True))
        return [texts[row] for row in range(len(rooms))]

    def _room(self, length: int) -> int:
        """How many tokens may follow a prompt: fewer where positions run out. The last is not read any more."""
        limit, _ = positions_left(self.source.config, self.method.virtual_tokens)
        wanted = self.decoding.max_new_tokens
        return wanted if limit is None else min(wanted, limit - length + 1)

    def _add(self, losses: Tensor, counted: Tensor) -> None:
        self.mean_loss.update(losses.sum(), counted.sum())

    def _log_loss(self, split: str) -> None:
        """Log the mean over all labels of a split, those of every process."""
        loss = self.mean_loss.compute()
        self.mean_loss.reset()
        self.log(f"{split}_loss", loss, prog_bar=split == "val")
        self.log(f"{split}_perplexity", torch.exp(loss))
