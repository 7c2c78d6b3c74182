"""Replacing a logged value. Where this fails, a release of Lightning holds its results in another form."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer

from red_lightning.compat.logged_results import replace_logged
from red_lightning.tasks import module
from tests.compat.test_fit_loop import Tiny, fit


class Logging(Tiny):
    """Logs the number of the batch, and replaces it after the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[bool] = []
        self.shown: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        value = torch.tensor(float(batch_idx))
        done = replace_logged(self.trainer, "training_step", "number", value, 1)
        if not done:
            self.log("number", value, batch_size=1)
        self.replaced.append(done)
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        self.shown.append(float(self.trainer.callback_metrics["number"]))


def test_all_but_the_first_value_of_an_epoch_are_replaced(tmp_path: Path) -> None:
    task = Logging()
    fit(tmp_path, task, callbacks=[])
    assert task.replaced == [False, *[True] * 6] * 2
    assert task.shown == [float(number) for number in range(7)] * 2


class Counted(module.TaskModule, Logging):  # type: ignore[misc]
    """Logs as a task does."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log_train_loss(torch.tensor(float(batch_idx)), 1)
        return Tiny.training_step(self, batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        self.shown.append(float(self.trainer.callback_metrics["train_loss"]))


@pytest.mark.parametrize(
    "results",
    [
        None,
        {},
        [],
        {"training_step.train_loss": 1.0},
        {"training_step.train_loss": SimpleNamespace(has_reset=False)},
    ],
    ids=str,
)
def test_results_of_another_form_are_logged_by_lightning(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = torch.tensor(1.0)
    assert not replace_logged(SimpleNamespace(_results=results), "training_step", "train_loss", value, 1)  # type: ignore[arg-type]
    assert not replace_logged(SimpleNamespace(), "training_step", "train_loss", value, 1)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "replace_logged", lambda trainer, *a: replace_logged(SimpleNamespace(), *a))  # type: ignore[arg-type]
    task = Counted()
    fit(tmp_path, task, callbacks=[])
    assert task.shown == [float(number) for number in range(7)] * 2


def test_a_task_without_a_trainer_has_none() -> None:
    task = Counted()
    assert task.attached is None
    task.trainer = trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert task.attached is trainer


def test_plain_attributes_stay_what_they_are() -> None:
    """The quick way to set a text or None is for plain attributes alone."""
    task = Counted()
    task.note = "a"
    task.note = None
    assert task.note is None
    task.layer = None  # a submodule
    assert "layer" in task._modules and "layer" not in vars(task)
    task.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(TypeError):
        task.weight = "text"
