"""The training loss that is shown is that of each micro-batch, as Lightning's own log shows it."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from red_lightning.tasks import DataToText
from tests.training import make_data, make_task, make_trainer


class Shown(Callback):
    """Remembers what the progress bar and callbacks see after each micro-batch."""

    def __init__(self) -> None:
        self.bar: list[Any] = []
        self.callback: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.bar.append(trainer.progress_bar_metrics.get("train_loss"))
        self.callback.append(float(trainer.callback_metrics["train_loss"]))


class StopBetween(Callback):
    """Ends the run between two log points, as ``trainer.max_time`` does."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 5


class Plain(DataToText):
    """Logs as Lightning documents it."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss, labels = self.loss(batch, self.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return self.share(loss * labels, batch, labels)


def shown_by(backbone: Path, folder: Path, plain: bool, **options: Any) -> tuple[Shown, list[dict[str, str]]]:
    task, shown = make_task(backbone), Shown()
    if plain:
        task.__class__ = Plain
    folder.mkdir()
    callbacks = [StopBetween(), shown, *([TQDMProgressBar()] if options.get("enable_progress_bar") else [])]
    trainer = make_trainer(
        folder,
        callbacks=callbacks,
        logger=CSVLogger(folder / "log", name="", version=""),
        log_every_n_steps=2,
        enable_checkpointing=False,
        **options,
    )
    trainer.fit(task, datamodule=make_data(folder, global_batch_size=4, micro_batch_size=2, train_size=6))
    with (folder / "log/metrics.csv").open(newline="") as file:
        return shown, list(csv.DictReader(file))


@pytest.mark.parametrize("bar", [False, True])
def test_what_is_shown_is_what_lightning_would_show(bar: bool, gpt2_folder: Path, tmp_path: Path) -> None:
    ours, lines = shown_by(gpt2_folder, tmp_path / "ours", False, enable_progress_bar=bar)
    plain, expected = shown_by(gpt2_folder, tmp_path / "plain", True, enable_progress_bar=bar)
    assert len(ours.callback) == 8  # 2 epochs of 2 micro-batches and 1, and then 2 of the last step
    assert ours.callback == plain.callback
    assert len(set(ours.callback)) == 8
    assert ours.bar == (plain.bar if bar else [None] * 8)
    assert lines == expected
    assert [line["step"] for line in lines if line["train_loss"]] == ["1", "3", "4"]


def test_the_log_holds_no_graph(gpt2_folder: Path, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Kept(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.callback_metrics["train_loss"])

    data = make_data(tmp_path)
    make_trainer(tmp_path, max_steps=3, limit_val_batches=0, callbacks=[Kept()]).fit(
        make_task(gpt2_folder), datamodule=data
    )
    assert [value.requires_grad for value in seen] == [False] * 3
    assert {value.dtype for value in seen} == {torch.float32}
