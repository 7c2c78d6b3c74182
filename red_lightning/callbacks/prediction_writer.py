"""Write the outputs of test and predict as JSONL."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from red_lightning.atomic_files import write_whole
from red_lightning.errors import cannot_write


class PredictionWriter(Callback):
    """Collect the rows that test and predict steps return, and write them in the data's order, from one process.

    Args:
        test_file: Output of ``test``, in the run's folder.
        predict_file: Output of ``predict``, in the run's folder.
    """

    def __init__(self, test_file: str = "test_predictions.jsonl", predict_file: str = "predictions.jsonl") -> None:
        self.test_file, self.predict_file = test_file, predict_file
        self.rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier rows."""
        self.rows = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier rows."""
        self.rows = []

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the rows of a batch."""
        self.rows.extend(outputs["rows"])

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the rows of a batch."""
        self.rows.extend(outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test file."""
        self._write(trainer, self.test_file)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the prediction file: a line for each row of the file to predict, also where rows are decoded once."""
        self._write(trainer, self.predict_file, getattr(getattr(trainer, "datamodule", None), "asked", {}))

    def _write(self, trainer: Trainer, name: str, asked: Mapping[int, list[dict[str, Any]]] | None = None) -> None:
        every = [row for rows in of_all_ranks(self.rows) for row in rows if row["row"] >= 0]  # -1: a filler
        every = [{**identity, **row, **identity} for row in every for identity in (asked or {}).get(row["row"], [{}])]
        self.rows = sorted(every, key=lambda row: row["row"])
        path, error = Path(trainer.default_root_dir, name), None
        if trainer.is_global_zero:
            try:
                write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))
            except OSError as caught:
                error = caught
        # All processes end, not only the one that knows.
        if not trainer.strategy.reduce_boolean_decision(error is None):
            way = "put that right, and run again (a fit with --ckpt_path last)"
            raise cannot_write(f"'{path}'", error, way) from error


def of_all_ranks(part: Any) -> list[Any]:
    """What each process has, in the order of the processes."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [part]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts
