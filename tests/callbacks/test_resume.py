"""A run that is continued from any of its checkpoints ends bit for bit where the uninterrupted run ends."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from lightning import Trainer

from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.errors import UsageError
from red_lightning.runs.resuming import checkpoint_of
from tests.training import learned, make_data, make_task, make_trainer


class KeepEvery(BestCheckpoint):
    """Keeps a copy of each state that a killed run could have left behind."""

    def _save(self, trainer: Trainer, path: Path) -> None:
        super()._save(trainer, path)
        if path == self.last_path:
            shutil.copy(path, path.with_name(f"step{trainer.global_step}.kept"))


SETTINGS: dict[str, dict[str, Any]] = {
    "each epoch": {},
    "within epochs": {"val_check_interval": 4},
    "across epochs": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "accumulating": {"micro_batch_size": 1},
    "validating amid accumulation": {"micro_batch_size": 1, "val_check_interval": 3},
    "short epochs": {"limit_train_batches": 4},
    "by steps": {"max_steps": 8, "max_epochs": -1, "val_check_interval": 3, "check_val_every_n_epoch": None},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resume_from_every_step_is_bit_identical(name: str, gpt2_folder: Path, tmp_path: Path) -> None:
    options = dict(SETTINGS[name])
    batches = {key: options.pop(key) for key in ("micro_batch_size",) if key in options}
    keeper = KeepEvery(every_n_steps=1)
    trainer = make_trainer(tmp_path / "whole", keeper, **options)
    task = make_task(gpt2_folder)
    trainer.fit(task, datamodule=make_data(tmp_path, **batches))
    end, best, steps = learned(task), (keeper.best_score, keeper.best_step), trainer.global_step
    checkpoints = sorted((tmp_path / "whole/checkpoints").glob("*.kept"))
    assert len(checkpoints) == steps
    for checkpoint in checkpoints:
        keeper = KeepEvery(every_n_steps=1)
        trainer = make_trainer(tmp_path / "resumed", keeper, **options)
        task = make_task(gpt2_folder)
        trainer.fit(task, datamodule=make_data(tmp_path, **batches), ckpt_path=str(checkpoint), weights_only=True)
        assert trainer.global_step == steps, checkpoint.name
        differing = [key for key, value in learned(task).items() if not torch.equal(value, end[key])]
        assert not differing, checkpoint.name
        assert (keeper.best_score, keeper.best_step) == best, checkpoint.name


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_amid_an_accumulation_is_not_continued(gpt2_folder: Path, tmp_path: Path) -> None:
    """best.ckpt of a validation that came between two micro-batches: what was gathered by then is not in it."""
    data = {"global_batch_size": 2, "micro_batch_size": 1}
    kept: list[bool] = []

    class Keep(BestCheckpoint):
        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            super().on_validation_end(trainer, pl_module)
            if trainer.global_step == 1 and not kept:
                shutil.copy(self.best_path, tmp_path / "amid.ckpt")
                kept.append(True)

    trainer = make_trainer(tmp_path / "amid", Keep(), val_check_interval=3, max_epochs=1)
    trainer.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path, **data))
    assert kept
    with pytest.raises(UsageError, match=r"within an accumulation, .* give last\.ckpt"):
        make_trainer(tmp_path / "again", max_epochs=1).fit(
            make_task(gpt2_folder), datamodule=make_data(tmp_path, **data), ckpt_path=str(tmp_path / "amid.ckpt")
        )
    make_trainer(tmp_path / "tested").test(
        make_task(gpt2_folder), datamodule=make_data(tmp_path), ckpt_path=str(tmp_path / "amid.ckpt"), verbose=False
    )
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "amid.ckpt", folder / "best.ckpt")
    assert checkpoint_of(tmp_path / "run", "auto", folder) == (None, ANY, None)
    shutil.copy(tmp_path / "amid/checkpoints/last.ckpt", folder / "last.ckpt")
    os.utime(folder / "last.ckpt", (0, 0))
    assert checkpoint_of(tmp_path / "run", "auto", folder) == (folder / "last.ckpt", ANY, ANY)


def test_a_flipped_bit_is_found(gpt2_folder: Path, tmp_path: Path) -> None:
    """torch.load compares no checksums: most flips in the tensors of an archive would be read as other numbers."""
    make_trainer(tmp_path / "run", max_epochs=1).fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    folder = tmp_path / "run/checkpoints"
    whole = (folder / "last.ckpt").read_bytes()
    with zipfile.ZipFile(folder / "last.ckpt") as archive:
        parts = [(entry.header_offset + 128, entry.file_size) for entry in archive.infolist() if entry.file_size > 256]
    assert parts
    for start, size in parts:
        flipped = bytearray(whole)
        flipped[start + size // 2] ^= 1
        (folder / "last.ckpt").write_bytes(flipped)
        with pytest.raises(UsageError, match=r"last\.ckpt' is damaged or not a checkpoint"):
            read_checkpoint(folder / "last.ckpt")
    found, said, _ = checkpoint_of(tmp_path / "run", "auto", folder)
    assert found == folder / "best.ckpt" and said.startswith("last.ckpt is damaged; continuing from best.ckpt")


def test_an_optimizer_state_of_another_shape_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    make_trainer(tmp_path / "run", max_epochs=1).fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    path = tmp_path / "run/checkpoints/last.ckpt"
    content = read_checkpoint(path)
    next(iter(content["optimizer_states"][0]["state"].values()))["exp_avg"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(UsageError, match=r"'exp_avg' of its optimizer has the shape \(3,\), but the parameter has"):
        make_trainer(tmp_path / "again", max_epochs=2).fit(
            make_task(gpt2_folder), datamodule=make_data(tmp_path), ckpt_path=str(path)
        )


def test_checkpoints_of_another_run_are_neither_replaced_nor_tested(gpt2_folder: Path, tmp_path: Path) -> None:
    keeper = BestCheckpoint(folder=str(tmp_path / "ck"))
    make_trainer(tmp_path / "one", keeper, max_epochs=1).fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    assert keeper.chosen_path == tmp_path / "ck/best.ckpt"
    before = keeper.chosen_path.read_bytes()
    with pytest.raises(UsageError, match="holds the checkpoints of another run"):
        make_trainer(tmp_path / "two", BestCheckpoint(folder=str(tmp_path / "ck")), max_epochs=1).fit(
            make_task(gpt2_folder), datamodule=make_data(tmp_path)
        )
    assert keeper.chosen_path.read_bytes() == before
