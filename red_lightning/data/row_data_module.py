"""Base of all data modules: rows that are read and tokenized once, subsets, and loaders that resume."""

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader

from red_lightning.data.batch_sizes import accumulate
from red_lightning.data.control_tokens import require_embedded
from red_lightning.data.held_out import HeldOut
from red_lightning.data.hub_rows import Row
from red_lightning.data.resumable_loader import EpochBatches, ResumableLoader, evaluation_loader, moved
from red_lightning.data.row_reports import RowReport
from red_lightning.data.subsets import subset, train_rows
from red_lightning.errors import UsageError, require_range

Split = Literal["train", "validation", "test", "predict"]
Encoded = dict[str, Any]

SPLITS: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("predict",),
}
"""The splits that each stage of Lightning's needs."""


class RowsDataModule(LightningDataModule):
    """Base of the data modules. A subclass reads the rows of a split, tokenizes them and collates batches.

    Args:
        global_batch_size: Rows per optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: Rows per forward pass of a process. Accumulation follows from it. null is the process' whole
            share of the global batch.
        eval_batch_size: Rows per batch and process in validation, test and prediction. Scores do not depend on it.
        train_size: Number or share (such as 0.1) of the training rows to use, chosen by the seed and stratified by
            class. null uses all.
        group_by_length: Batch training rows of similar length, which saves padding. The order still differs between
            epochs, but is less random.
        seed: Seed of the order of training rows, of ``train_size`` and of splits. null uses the seed of the run.
        num_workers: Processes that prepare batches. 0 prepares them in the training process.
    """

    examples = "any data module"  # what a user is told to choose from
    packing = False  # whether the training rows of a micro-batch are packed into one

    def __init__(
        self,
        global_batch_size: int = 32,
        micro_batch_size: int | None = None,
        eval_batch_size: int = 64,
        train_size: int | float | None = None,
        group_by_length: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        sizes = {
            "global_batch_size": global_batch_size,
            "micro_batch_size": micro_batch_size,
            "eval_batch_size": eval_batch_size,
        }
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise UsageError(f"data.{name} is {value}, but a batch needs at least one row")
        require_range("data.num_workers", num_workers, 0)
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.train_size, self.group_by_length, self.num_workers = train_size, group_by_length, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "42")) if seed is None else seed
        self.tokenizer: Any = None
        self.encoder_decoder = False
        self.cut: dict[str, int] = {}
        self.warnings: list[str] = []
        self.asked: dict[
            int, list[dict[str, Any]]
        ] = {}  # the rows of a file (row, id) that a row to predict stands for
        self.report, self.held_out = RowReport(), HeldOut()
        self._encoded: dict[str, list[Encoded]] = {}
        self._train_loader: ResumableLoader | None = None
        self._position = {"position": 0}

    @abstractmethod
    def read(self, split: Split) -> list[Row]:
        """Read the rows of a split."""

    @abstractmethod
    def encode(self, split: Split, rows: list[Row]) -> list[Encoded]:
        """Tokenize the rows of a split (and count in ``cut`` those that are longer than the limits)."""

    @abstractmethod
    def length(self, row: Encoded) -> int:
        """Tokens of an encoded row: rows of like length share a batch."""

    def weight(self, row: Encoded) -> int:
        """What an encoded training row counts in the loss of its optimizer step: the number of its labels."""
        return 1

    def evaluation_order(self, split: Split, rows: list[Encoded]) -> list[Encoded]:
        """The rows of a split in the order in which they share batches in evaluation: by length."""
        return sorted(rows, key=self.length)

    def groups(self, rows: list[Encoded]) -> list[Hashable] | None:
        """What each training row belongs to, where rows of a group shall share a batch; None where none shall."""
        return None

    @abstractmethod
    def collate(self, split: Split) -> Callable[[list[Encoded]], dict[str, Any]]:
        """The function that makes a batch of rows."""

    @abstractmethod
    def check(self, split: Split, rows: list[Row]) -> None:
        """Refuse rows that cannot be used: a :class:`UsageError` names the row and what is wrong with it."""

    def strata(self, rows: list[Row]) -> list[Hashable] | None:
        """The class of each row, of which ``train_size`` keeps the shares; None if there are no classes."""
        return None

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The options that decide which rows are held out, by name; empty if none do."""
        return {}

    @property
    def trained_content(self) -> dict[str, Any]:
        """What the checkpoint knows of the training file (see :class:`HeldOut`); empty without one."""
        return getattr(self._task, "content", {})

    @property
    def encoding(self) -> dict[str, Any]:
        """The options that decide how a row becomes tokens, which a checkpoint carries."""
        return {}

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, and what was left out of them, for results.json."""
        return {"class": type(self).__name__, **self.report.provenance(), **self.held_out.provenance()}

    @property
    def notes(self) -> list[str]:
        """What to know before training: what is left out of the files, and what of them has changed."""
        return [*self.report.notes, *self.held_out.notes]

    def connect(self, tokenizer: Any, encoder_decoder: bool) -> None:
        """Take the tokenizer of the backbone that will read the rows.

        Args:
            tokenizer: A Hugging Face tokenizer with a padding token.
            encoder_decoder: Whether the backbone has an encoder and a decoder.
        """
        self.tokenizer, self.encoder_decoder = tokenizer, encoder_decoder

    @property
    def _task(self) -> Any:
        return self.trainer.lightning_module if self.trainer else None

    def setup(self, stage: str) -> None:
        """Read and tokenize the splits that a stage needs (Lightning calls it)."""
        if self.tokenizer is None:
            if self._task is None:
                raise UsageError("the data module has no tokenizer; call connect(tokenizer, encoder_decoder) first")
            self.connect(self._task.tokenizer, self._task.encoder_decoder)
        for split in SPLITS[stage]:
            if split not in self._encoded:
                self.cut[split] = 0
                encoded = self.encode(split, self.checked_rows(split))
                self._encoded[split] = [{"row": number, **row} for number, row in enumerate(encoded)]
                config = getattr(getattr(self._task, "source", None), "config", None)
                require_embedded(self.tokenizer, self._encoded[split], config, f"row {{}} of the {split} split".format)
        if stage == "fit" and self.trainer is not None:
            accumulate(self.trainer, self.global_batch_size, self.micro_batch_size)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each split that was read; where texts are decoded, its distinct sources."""
        return {split: len(rows) for split, rows in self._encoded.items()}

    def checked_rows(self, split: Split) -> list[Row]:
        """The rows of a split that are used.

        Raises:
            UsageError: There are none, or they cannot be used.
        """
        rows = self.read(split)
        if not rows:
            raise UsageError(f"the {split} split has no rows")
        self.check(split, rows)
        if split == "train" and self.train_size is not None:
            size = train_rows(self.train_size, len(rows))
            rows = [rows[index] for index in subset(len(rows), size, self.seed, self.strata(rows))]
        return rows

    def train_dataloader(self) -> ResumableLoader:
        """Every training row, in an order that depends on the seed and the epoch."""
        rows, (rank, world_size) = self._encoded["train"], self._rank()
        batches = EpochBatches(
            len(rows),
            self.global_batch_size,
            self.seed,
            rank,
            world_size,
            lengths=[self.length(row) for row in rows] if self.group_by_length or self.packing else None,
            micro_batch_size=self.micro_batch_size,
            packing=self.packing,
            weights=[self.weight(row) for row in rows],
            groups=self.groups(rows),
        )
        options = {"collate_fn": self.collate("train"), **self._workers()}
        self._train_loader = ResumableLoader(rows, batches, self._epoch_length, **options)
        self._train_loader.load_state_dict(self._position)
        self._position = {"position": 0}
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation row once; rows of like length (or that save more together) share a batch."""
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test row once; rows of like length share a batch."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every row to predict once; rows of like length share a batch."""
        return self._evaluation("predict")

    def transfer_batch_to_device(self, batch: Encoded, device: Any, dataloader_idx: int) -> Encoded:
        """Move the tensors of a batch."""
        return moved(batch, device)

    def state_dict(self) -> dict[str, int]:
        """The position within the epoch, for a checkpoint."""
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue a fit where a checkpoint left it: Lightning would give the loader its position too late."""
        if state_dict and self.trainer is not None and self.trainer.state.fn == "fit":
            self._position = state_dict

    def _evaluation(self, split: Split) -> DataLoader[Any]:
        rows = self.evaluation_order(split, self._encoded[split])
        options = {"collate_fn": self.collate(split), **self._workers()}
        return evaluation_loader(rows, self.eval_batch_size, *self._rank(), **options)

    def _epoch_length(self) -> float:
        return self.trainer.num_training_batches if self.trainer else math.inf

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> dict[str, Any]:
        locked = isinstance(getattr(self.trainer, "accelerator", None), CUDAAccelerator)  # copied without waiting
        return {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0, "pin_memory": locked}
