"""Which state is kept as the best, and what happens where none can be kept."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from red_lightning import RED
from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.errors import UsageError, usage_error_in
from red_lightning.generation import Decoding
from red_lightning.tasks import DataToText
from tests.training import learned, make_data, make_task, make_trainer


class Scripted(DataToText):
    """Logs given scores, one for each validation."""

    def __init__(self, *args: Any, scores: list[float], **options: Any) -> None:
        super().__init__(*args, **options)
        self.scores = iter(scores)
        self.at: list[dict[str, torch.Tensor]] = []

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.at.append(learned(self))
        self.log("score", next(self.scores))


def run(backbone: Path, folder: Path, scores: list[float], mode: Any) -> tuple[Scripted, BestCheckpoint, Trainer]:
    decoding = Decoding(max_new_tokens=5)
    task = Scripted(str(backbone), RED(), scores=scores, metrics=["BLEU"], learning_rate=1e-2, decoding=decoding)
    keeper = BestCheckpoint("score", mode, folder=str(folder / "kept"))
    trainer = make_trainer(folder, keeper, max_epochs=len(scores))
    trainer.fit(task, datamodule=make_data(folder, 4))
    return task, keeper, trainer


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("min", [3.0, 1.0, 2.0], 1),
        ("min", [3.0, 1.0, 1.0, 1.0], 1),
        ("max", [3.0, 1.0, 4.0], 2),
        ("max", [3.0, 3.0, 1.0], 0),
        ("max", [-math.inf, -5.0, -6.0], 1),
        ("min", [math.inf, math.inf], 0),
    ],
)
def test_the_first_of_the_best_is_kept(
    mode: str, scores: list[float], best: int, gpt2_folder: Path, tmp_path: Path
) -> None:
    task, keeper, trainer = run(gpt2_folder, tmp_path, scores, mode)
    steps = trainer.global_step // len(scores)
    assert (keeper.best_score, keeper.best_step) == (scores[best], steps * (best + 1))
    content = read_checkpoint(tmp_path / "kept/best.ckpt")
    assert content["global_step"] == steps * (best + 1)
    assert all(torch.equal(value, task.at[best][name]) for name, value in content["state_dict"].items())
    assert read_checkpoint(tmp_path / "kept/last.ckpt")["global_step"] == trainer.global_step
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_score_that_is_no_number_stops_the_run(gpt2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"score became nan at step 4.*last good checkpoint is .*last\.ckpt"):
        run(gpt2_folder, tmp_path, [1.0, math.nan, 0.5], "min")
    assert read_checkpoint(tmp_path / "kept/best.ckpt")["global_step"] == 2
    assert read_checkpoint(tmp_path / "kept/last.ckpt")["global_step"] == 2  # not what gave no number


def fit_error(trainer: Trainer, backbone: Path, folder: Path) -> tuple[str, dict[str, bool]]:
    """The complaint, and whether each trained tensor still has its first value."""
    task = make_task(backbone)
    task.configure_model()
    before = learned(task)
    with pytest.raises(Exception) as caught:
        trainer.fit(task, datamodule=make_data(folder))
    error = usage_error_in(caught.value)
    assert error is not None
    return str(error), {name: torch.equal(value, before[name]) for name, value in learned(task).items()}


def test_a_metric_that_is_never_logged_is_refused_before_training(gpt2_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, BestCheckpoint("val_los"), num_sanity_val_steps=1)
    message, untouched = fit_error(trainer, gpt2_folder, tmp_path)
    assert "'val_los', which validation never logs: did you mean 'val_loss'?" in message
    assert "val_perplexity" in message
    assert trainer.global_step == 0 and all(untouched.values())


def test_a_folder_that_cannot_be_written_is_refused_before_training(gpt2_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for folder in (file, file / "below"):
        trainer = make_trainer(tmp_path, BestCheckpoint(folder=str(folder)))
        message, untouched = fit_error(trainer, gpt2_folder, tmp_path)
        assert f"the checkpoint folder '{folder}' cannot be written" in message
        assert trainer.global_step == 0 and all(untouched.values())
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("steps", [0, -1])
def test_an_impossible_interval_is_refused(steps: int) -> None:
    with pytest.raises(UsageError, match=rf"every_n_steps is {steps}, but must be at least 1"):
        BestCheckpoint(every_n_steps=steps)


class Interrupted(BestCheckpoint):
    """Dies while a file is written, after a few were."""

    writes = 0

    def _save(self, trainer: Trainer, path: Path) -> None:
        self.writes += 1
        if self.writes == 4:
            path.with_suffix(".tmp").write_bytes(b"half a checkpoi")
            raise KeyboardInterrupt
        super()._save(trainer, path)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_crash_while_writing_leaves_the_previous_files_whole(gpt2_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Interrupted(every_n_steps=1))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 3
    resumed = make_trainer(tmp_path, BestCheckpoint(every_n_steps=1))
    last = str(tmp_path / "checkpoints/last.ckpt")
    resumed.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path), ckpt_path=last, weights_only=True)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_damaged_checkpoints_are_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    make_trainer(tmp_path, max_steps=1).fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    path = tmp_path / "checkpoints/last.ckpt"
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], content[:-10], b"text" * 100):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="is damaged or not a checkpoint"):
            read_checkpoint(path)
    path.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        read_checkpoint(path)


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_fails_late_leaves_the_previous_file(
    failing: str, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    module, name = failing.rsplit(".", 1)
    real = getattr(os if module == "os" else Path, name)

    def fail_later(*args: Any) -> Any:
        if next(calls) >= 3:
            raise OSError(errno.EIO, "Input/output error")
        return real(*args)

    monkeypatch.setattr(failing, fail_later)
    trainer = make_trainer(tmp_path, BestCheckpoint(every_n_steps=1))
    last = tmp_path / "checkpoints/last.ckpt"
    with pytest.raises(UsageError, match=rf"'{last}' cannot be written: Input/output error; .*good .* is '{last}'"):
        trainer.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    assert read_checkpoint(last)["global_step"] == 3
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_saving_now_writes_each_step_once(gpt2_folder: Path, tmp_path: Path) -> None:
    keeper = BestCheckpoint()
    trainer = make_trainer(tmp_path, keeper, max_steps=2)
    trainer.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    before = keeper.last_path.stat().st_ino
    keeper.save_now(trainer)
    assert keeper.last_path.stat().st_ino == before
    keeper._saved_step = 1
    keeper.save_now(trainer)
    assert keeper.last_path.stat().st_ino != before


class Malicious:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(UsageError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
