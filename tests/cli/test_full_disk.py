"""A disk that is full, read-only or gone ends a run with one sentence, and what was good stays good."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.cli.commands import results, run_apart, write_experiment
from tests.cli.conftest import CLI
from tests.cli.test_kill import bytes_of

FIT = ("fit", "--config", "small.yaml", "--checkpoint.every_n_steps", "1", "--run.name", "x")


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"0" * size):
                    pass
            except OSError:
                continue


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def remove_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "x/checkpoints")


class Accident(Callback):
    """Something happens to the disk at a moment of the run, on the first process.

    Args:
        what: ``fill``, ``read_only`` or ``remove_checkpoints``.
        when: ``step 3``, or the name of a hook.
    """

    def __init__(self, what: str, when: str) -> None:
        self.what, self.when = what, when

    def _happen(self, trainer: Trainer, moment: str) -> None:
        actions: dict[str, Callable[[Path], None]] = {
            "fill": fill,
            "read_only": read_only,
            "remove_checkpoints": remove_checkpoints,
        }
        if moment == self.when and trainer.is_global_zero:
            actions[self.what](Path(trainer.default_root_dir).parent)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._happen(trainer, f"step {trainer.global_step}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._happen(trainer, "test start")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._happen(trainer, "test end" if stage == "test" else "")


def happen(what: str, when: str) -> tuple[str, ...]:
    prefix = "--trainer.callbacks"
    return (f"{prefix}+=tests.cli.test_full_disk.Accident", f"{prefix}.what={what}", f"{prefix}.when={when}")


@pytest.fixture
def disk(tmp_path: Path, gpt2_folder: Path) -> Iterator[Path]:
    """A small disk where the runs go, and an experiment."""
    write_experiment(tmp_path, gpt2_folder)
    folder = tmp_path / "runs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.rglob("*") if ".tmp" in path.name or ".old" in path.name]


def test_a_run_that_met_a_full_disk_can_be_continued(cli: CLI, disk: Path) -> None:
    assert cli(*FIT[:-1], "whole").status == 0
    error = cli(*FIT, *happen("fill", "step 4")).error
    last = disk / "x/checkpoints/last.ckpt"
    assert f"the checkpoint '{last}' cannot be written: No space left on device" in error
    assert f"the last good checkpoint is '{last}'" in error
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert leftovers(disk / "x") == []
    (disk / "filler").unlink()
    outcome = cli(*FIT, "--ckpt_path", "last")
    assert outcome.status == 0, outcome.err
    assert results(disk / "x") == results(disk / "whole")
    assert bytes_of(disk / "x") == bytes_of(disk / "whole")


def test_a_disk_that_became_read_only(cli: CLI, disk: Path) -> None:
    error = cli(*FIT, *happen("read_only", "step 4")).error
    assert "last.ckpt' cannot be written: Read-only file system" in error
    assert torch.load(disk / "x/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_a_folder_that_vanished_is_made_again(cli: CLI, disk: Path) -> None:
    outcome = cli(*FIT, *happen("remove_checkpoints", "step 4"))
    assert outcome.status == 0, outcome.err
    assert torch.load(disk / "x/checkpoints/last.ckpt", weights_only=True)["global_step"] == 12


@pytest.mark.parametrize(
    ("what", "when", "named"),
    [
        ("fill", "test start", "test_predictions.jsonl' cannot be written: No space left"),
        ("read_only", "test start", "test_predictions.jsonl' cannot be written: Read-only"),
        ("fill", "test end", "cannot be written: No space left on device"),
        ("read_only", "test end", "cannot be written: Read-only file system"),
    ],
)
def test_the_results_do_not_fit(what: str, when: str, named: str, cli: CLI, disk: Path) -> None:
    error = cli(*FIT, *happen(what, when)).error
    assert named in error
    assert "--ckpt_path last" in error
    assert not (disk / "x/results.json").exists()
    assert leftovers(disk / "x") == []
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (disk / "filler").unlink(missing_ok=True)
    assert cli(*FIT, "--ckpt_path", "last").status == 0
    assert (disk / "x/results.json").exists()


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_log_does_not_fit(logger: str, cli: CLI, disk: Path) -> None:
    loggers = Path(__file__).parents[2] / f"configs/trainer/{logger}.yaml"
    options = ("--trainer.logger", str(loggers), "--trainer.log_every_n_steps", "1")
    error = cli(*FIT, *options, *happen("fill", "step 4")).error
    assert "cannot be written: No space left on device" in error
    assert torch.load(disk / "x/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_files_may_not_grow(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    """Without a small disk: the system limits the size of every file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, before[1]))
    try:
        error = cli(*FIT).error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written: File too large; put that right" in error
    assert "there is no checkpoint yet" in error
    assert not (tmp_path / "runs/x").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("when", "named"), [("step 4", "last.ckpt'"), ("test start", "test_predictions.jsonl'")])
def test_both_processes_end(when: str, named: str, disk: Path, tmp_path: Path) -> None:
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    done = run_apart(tmp_path, *FIT, *two, *happen("fill", when))
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{named} cannot be written: No space left on device" in done.stderr
    assert f"{named} cannot be written: another process could not write it" in done.stderr
    assert "Traceback" not in done.stderr
