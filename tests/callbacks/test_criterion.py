"""What chooses the best checkpoint where the wanted metric cannot be measured."""

from pathlib import Path
from typing import Any

import pytest

from red_lightning.callbacks import BestCheckpoint, Criterion
from red_lightning.callbacks.criterion import replacement
from red_lightning.errors import UsageError
from tests.training import make_data, make_task, make_trainer

WANTED, LOSS = Criterion("val_truthfulqa", "max"), Criterion("val_loss", "min")
BEGAN_WANTED = {"monitor": "val_truthfulqa", "wanted": "val_truthfulqa", "reason": None}
BEGAN_LOSS = {"monitor": "val_loss", "wanted": "val_truthfulqa", "reason": "it was missing"}
OTHER_RUN = {"monitor": "val_score", "wanted": "val_score", "reason": None}


@pytest.mark.parametrize("began", [{}, BEGAN_WANTED, OTHER_RUN, {"monitor": "val_truthfulqa"}])
def test_a_metric_that_can_be_measured_is_kept(began: dict[str, Any]) -> None:
    assert replacement(WANTED, LOSS, began, None, "") is None


@pytest.mark.parametrize("began", [{}, BEGAN_LOSS, OTHER_RUN])
def test_the_fallback_replaces_it(began: dict[str, Any]) -> None:
    found = replacement(WANTED, LOSS, began, "it is missing", "install it")
    assert found is not None and found.criterion == LOSS and found.reason == "it is missing"
    assert found.told == (
        "note: it is missing, so the best checkpoint is chosen by val_loss (min) instead of val_truthfulqa (max); "
        "to choose by val_truthfulqa, install it"
    )


def test_without_a_fallback_it_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"chosen by val_truthfulqa, but it is missing; install it, or choose by"):
        replacement(WANTED, None, {}, "it is missing", "install it")


def test_a_resumed_run_keeps_what_it_began_with() -> None:
    found = replacement(WANTED, LOSS, BEGAN_LOSS, None, "")
    assert found is not None and found.criterion == LOSS and found.reason == "it was missing"
    assert (
        "val_truthfulqa can be measured now, but this run began to choose its best checkpoint by val_loss" in found.told
    )
    with pytest.raises(UsageError, match=r"began to choose .* by val_truthfulqa .* but gone; bring it, or start a new"):
        replacement(WANTED, LOSS, BEGAN_WANTED, "gone", "bring it")


def test_another_fallback_is_a_new_decision() -> None:
    assert replacement(WANTED, Criterion("val_perplexity"), BEGAN_LOSS, None, "") is None
    assert replacement(WANTED, None, BEGAN_LOSS, None, "") is None


def fit(backbone: Path, folder: Path, keeper: BestCheckpoint, epochs: int, resume: bool = False) -> None:
    last = str(keeper_path(folder)) if resume else None
    trainer = make_trainer(folder, keeper, max_epochs=epochs)
    trainer.fit(make_task(backbone), datamodule=make_data(folder), ckpt_path=last, weights_only=True)


def keeper_path(folder: Path) -> Path:
    return folder / "checkpoints/last.ckpt"


def test_a_trainer_without_the_command_line_keeps_it_too(
    gpt2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = BestCheckpoint("val_perplexity", "min", fallback=Criterion())
    assert first.settle("it is missing", "install it") is not None
    fit(gpt2_folder, tmp_path, first, 1)
    resumed = BestCheckpoint("val_perplexity", "min", fallback=Criterion())
    fit(gpt2_folder, tmp_path, resumed, 2, resume=True)
    assert resumed.selection() == {
        "monitor": "val_loss",
        "mode": "min",
        "score": resumed.best_score,
        "step": resumed.best_step,
        "wanted": "val_perplexity",
        "reason": "it is missing",
    }
    assert resumed.best_score is not None and first.best_score is not None
    assert resumed.best_score <= first.best_score
    assert capsys.readouterr().out.count("val_perplexity can be measured now") == 1
    elsewhere = BestCheckpoint("val_perplexity", "min", fallback=Criterion(), folder=str(tmp_path / "other"))
    fit(gpt2_folder, tmp_path, elsewhere, 3, resume=True)  # a new folder: nothing to compare with
    assert elsewhere.monitor == "val_perplexity" and elsewhere.reason is None
