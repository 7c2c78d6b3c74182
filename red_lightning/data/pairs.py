"""Pairs of a source text and a reference text: what every data-to-text data set is made of."""

import math
import os
from abc import abstractmethod
from functools import partial
from typing import Any, Literal

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from red_lightning.data.collation import collate_for_decoding, collate_for_loss
from red_lightning.data.loader import EpochBatches, ResumableLoader, evaluation_loader
from red_lightning.data.sources import Row, require_text
from red_lightning.errors import UsageError, require_range

Split = Literal["train", "validation", "test", "predict"]


class PairsDataModule(LightningDataModule):
    """Base of the data-to-text data modules. A subclass says where the rows of a split come from (:meth:`read`).

    Training and validation use every (source, target) row. Test and prediction use each distinct source once, with
    all its references. The task that is trained supplies the tokenizer.

    Args:
        batch_size: Rows of one training batch of all processes together, so that a config means the same on any number
            of them; each takes its equal share.
        eval_batch_size: Rows of one batch of one process elsewhere; scores do not depend on it.
        max_source_length: Tokens of a source, its EOS included; longer ones are cut.
        max_target_length: Tokens of a target, its EOS included; longer ones are cut.
        train_size: Use only so many training rows, chosen by the seed; null for all.
        seed: Seeds the order of the training rows and the choice of ``train_size``; null takes that of the run.
        num_workers: Processes that prepare batches; 0 prepares them in the training process.
    """

    def __init__(
        self,
        batch_size: int = 10,
        eval_batch_size: int = 16,
        max_source_length: int = 64,
        max_target_length: int = 100,
        train_size: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UsageError(f"data.{name} is {value}, but a batch needs at least one row")
        require_range("data.num_workers", num_workers, 0)
        if max_source_length < 2 or max_target_length < 2:
            raise UsageError("data.max_source_length and data.max_target_length must be at least 2 (a token and EOS)")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.train_size, self.num_workers = train_size, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "42")) if seed is None else seed
        self.tokenizer: Any = None
        self.encoder_decoder = False
        self.cut: dict[str, int] = {}
        self._encoded: dict[str, list[dict[str, Any]]] = {}
        self._train_loader: ResumableLoader | None = None
        self._position = {"position": 0}

    @abstractmethod
    def read(self, split: Split) -> list[Row]:
        """Read the rows of a split.

        Returns:
            Dictionaries with the texts ``source`` and ``target``; ``target`` may be missing in the ``predict`` split.
        """

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, for results.json."""
        return {"class": type(self).__name__}

    def connect(self, tokenizer: Any, encoder_decoder: bool) -> None:
        """Take the tokenizer of the backbone that will read the rows.

        Args:
            tokenizer: A Hugging Face tokenizer with EOS and padding tokens.
            encoder_decoder: Whether source and target go to different stacks.
        """
        self.tokenizer, self.encoder_decoder = tokenizer, encoder_decoder

    def setup(self, stage: str) -> None:
        """Read and tokenize the splits that a stage needs (Lightning calls it)."""
        if self.tokenizer is None:
            task: Any = self.trainer.lightning_module if self.trainer else None
            if task is None:
                raise UsageError("the data module has no tokenizer; call connect(tokenizer, encoder_decoder) first")
            self.connect(task.tokenizer, task.encoder_decoder)
        needed: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "validation"),
            "validate": ("validation",),
            "test": ("test",),
            "predict": ("predict",),
        }
        for split in needed[stage]:
            if split not in self._encoded:
                self._encoded[split] = self._encode(split, self._rows(split))

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each split that was read; where texts are decoded, its distinct sources."""
        return {split: len(rows) for split, rows in self._encoded.items()}

    def train_dataloader(self) -> ResumableLoader:
        """Every training row, in an order that depends on the seed and the epoch."""
        rows = self._encoded["train"]
        rank, world_size = self._rank()
        if self.batch_size % world_size:
            raise UsageError(
                f"data.batch_size is {self.batch_size}, which {world_size} processes cannot share equally; "
                f"make it a multiple of {world_size}"
            )
        batches = EpochBatches(len(rows), self.batch_size, self.seed, rank, world_size)
        options = {"collate_fn": self._collate(collate_for_loss), **self._workers()}
        self._train_loader = ResumableLoader(rows, batches, self._epoch_length, **options)
        self._train_loader.load_state_dict(self._position)
        self._position = {"position": 0}
        return self._train_loader

    def state_dict(self) -> dict[str, int]:
        """The position within the epoch, for a checkpoint."""
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue a fit where a checkpoint left it.

        Lightning would hand the position to the loader itself, but it does so too late if the number of steps had to
        be estimated before.
        """
        if state_dict and self.trainer is not None and self.trainer.state.fn == "fit":
            self._position = state_dict

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation row once; rows of like length share a batch."""
        rows = sorted(self._encoded["validation"], key=lambda row: len(row["source"]) + len(row["target"]))
        return self._evaluation(rows, collate_for_loss)

    def test_dataloader(self) -> DataLoader[Any]:
        """Every distinct test source once; sources of like length share a batch."""
        return self._decoding("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every distinct source to predict once; sources of like length share a batch."""
        return self._decoding("predict")

    def _rows(self, split: Split) -> list[Row]:
        rows = self.read(split)
        if not rows:
            raise UsageError(f"the {split} split has no rows")
        require_text(rows, f"the {split} split")
        if split == "train" and self.train_size is not None:
            if not 1 <= self.train_size <= len(rows):
                raise UsageError(f"data.train_size is {self.train_size}, but the train split has {len(rows)} rows")
            chosen = EpochBatches(len(rows), 1, self.seed).order()[: self.train_size]
            rows = [rows[index] for index in sorted(chosen)]
        return rows

    def _encode(self, split: Split, rows: list[Row]) -> list[dict[str, Any]]:
        """Token lists of a split: one entry per row, or per distinct source where texts are decoded."""
        self.cut[split] = 0
        if split in ("test", "predict"):
            references: dict[str, list[str]] = {}
            for row in rows:
                references.setdefault(row["source"], []).extend([row["target"]] if "target" in row else [])
            sources = self._tokens(list(references), self.max_source_length, split, special=True)
            return [
                {"row": number, "source": source, "text": text, "references": references[text]}
                for number, (source, text) in enumerate(zip(sources, references, strict=True))
            ]
        sources = self._tokens([row["source"] for row in rows], self.max_source_length, split, special=True)
        targets = self._tokens([row["target"] for row in rows], self.max_target_length, split, special=False)
        return [{"source": source, "target": target} for source, target in zip(sources, targets, strict=True)]

    def _tokens(self, texts: list[str], limit: int, split: Split, special: bool) -> list[list[int]]:
        """Tokens of each text, cut to the limit and ended by EOS (which the authors' code loses where it cuts)."""
        eos = self.tokenizer.eos_token_id
        encoded = []
        for tokens in self.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]:
            tokens = tokens[:-1] if tokens and tokens[-1] == eos else tokens
            self.cut[split] += len(tokens) > limit - 1
            encoded.append([*tokens[: limit - 1], eos])
        return encoded

    def _decoding(self, split: str) -> DataLoader[Any]:
        rows = sorted(self._encoded[split], key=lambda row: len(row["source"]))
        return self._evaluation(rows, collate_for_decoding)

    def _evaluation(self, rows: list[dict[str, Any]], collate: Any) -> DataLoader[Any]:
        options = {"collate_fn": self._collate(collate), **self._workers()}
        return evaluation_loader(rows, self.eval_batch_size, *self._rank(), **options)

    def _collate(self, collate: Any) -> Any:
        return partial(collate, pad_id=self.tokenizer.pad_token_id, encoder_decoder=self.encoder_decoder)

    def _epoch_length(self) -> float:
        return self.trainer.num_training_batches if self.trainer else math.inf

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> dict[str, Any]:
        return {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
