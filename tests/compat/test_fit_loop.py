"""Where Lightning's loop stands. Where this fails, a release has changed it (compat/fit_loop)."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from red_lightning.compat.fit_loop import is_accumulating, repeat_validation, validates_next


class Endless(IterableDataset):
    """Rows without a known number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return iter(torch.ones(self.count, 1))


class Tiny(LightningModule):
    """Counts what Lightning does."""

    def __init__(self, sized: bool = True) -> None:
        super().__init__()
        self.layer, self.sized = nn.Linear(1, 1), sized
        self.events: list[str] = []

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(7, 1) if self.sized else Endless(7), batch_size=1)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(torch.ones(2, 1), batch_size=1)  # type: ignore[arg-type]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if not batch_idx:
            self.events.append("validation")

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        self.events.append("step")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Predicting(Callback):
    """Notes after each batch what it takes to have happened, and to happen next."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.events[-1:] != ["step"]:
            pl_module.events.append("no step")
        pl_module.events.append(f"accumulating {is_accumulating(trainer)}, validates {validates_next(trainer)}")


def fit(folder: Path, module: Tiny, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings = {"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0, "enable_model_summary": False}
    trainer = Trainer(**{"callbacks": [Predicting()], **quiet, **settings, **options}, default_root_dir=folder)
    trainer.fit(module)
    return trainer


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_check_interval": 2},
        {"val_check_interval": 3, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 2},
        {"limit_train_batches": 5},
        {"max_steps": 2, "max_epochs": -1},
        {"limit_val_batches": 0},
    ],
    ids=str,
)
def test_predictions_come_true(sized: bool, accumulation: int, options: dict[str, Any], tmp_path: Path) -> None:
    module = Tiny(sized)
    fit(tmp_path, module, accumulate_grad_batches=accumulation, **options)
    pairs = [*itertools.pairwise([*module.events, "end"])]
    told = [(number, event) for number, (event, _) in enumerate(pairs) if event.startswith("accumulating")]
    assert len(told) > 1
    for number, event in told:
        assert event.startswith("accumulating True") == (pairs[number - 1][0] == "no step"), module.events
        if options.get("limit_val_batches") != 0:
            assert event.endswith("validates True") == (pairs[number][1] == "validation"), module.events


class Repeating(Callback):
    """Repeats a validation at the start."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        repeat_validation(trainer)
        assert trainer.training


def test_a_repeated_validation_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    plain, repeated = Tiny(), Tiny()
    fit(tmp_path, plain)
    fit(tmp_path, repeated, callbacks=[Repeating(), Predicting()])
    assert repeated.events == ["validation", *plain.events]


class Save(Callback):
    """Writes a checkpoint in the validation at an epoch's end, before the loop counts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == 7:
            trainer.save_checkpoint(self.path)


def test_a_run_that_resumes_with_a_repeated_validation_does_the_rest(tmp_path: Path) -> None:
    path, plain, resumed = tmp_path / "a.ckpt", Tiny(), Tiny()
    fit(tmp_path, plain, callbacks=[Save(path)])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Repeating()],
        default_root_dir=tmp_path,
    )
    trainer.fit(resumed, ckpt_path=path, weights_only=True)
    assert trainer.global_step == 14
    assert resumed.events.count("step") == 7
    assert resumed.events[0] == "validation"
    assert resumed.events.count("validation") == 2
