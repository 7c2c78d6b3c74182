"""A run that is told to stop saves at the next whole step, ends, and goes on as if nothing had happened."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from red_lightning.callbacks import BestCheckpoint, Preemption, read_checkpoint
from tests.training import learned, make_data, make_task, make_trainer


class Tell(Callback):
    """Sends this process a signal at the n-th call of a hook of this callback."""

    def __init__(self, hook: str, n: int, number: int = signal.SIGTERM, times: int = 1) -> None:
        self.calls = 0

        def tell(trainer: Trainer, *_: Any, **__: Any) -> None:
            if not trainer.sanity_checking:
                self.calls += 1
                for _ in range(times * (self.calls == n)):
                    os.kill(os.getpid(), number)

        setattr(self, hook, tell)


@pytest.fixture
def fit(gpt2_folder: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, torch.Tensor], BestCheckpoint, int]]:
    """Fits a tiny GPT-2, and returns what it learned, the keeper and the number of steps."""

    def run(
        name: str, *callbacks: Callback, ckpt: Path | None = None, batches: Any = None, **options: Any
    ) -> tuple[dict[str, torch.Tensor], BestCheckpoint, int]:
        keeper = BestCheckpoint()
        trainer = make_trainer(tmp_path / name, callbacks=[*callbacks, Preemption(), keeper], **options)
        task = make_task(gpt2_folder)
        trainer.fit(task, datamodule=make_data(tmp_path, **batches or {}), ckpt_path=str(ckpt) if ckpt else None)
        return learned(task), keeper, trainer.global_step

    return run


EPOCHS: dict[str, Any] = {"max_epochs": 2}  # of 6 steps
ACCUMULATING = {**EPOCHS, "batches": {"micro_batch_size": 1}}
WITHIN = {**EPOCHS, "val_check_interval": 4}
STEPS = {"max_steps": 9, "max_epochs": -1, "val_check_interval": 4, "check_val_every_n_epoch": None}


@pytest.mark.parametrize(
    ("settings", "hook", "n", "step"),
    [
        (EPOCHS, "on_before_backward", 2, 2),
        (EPOCHS, "on_train_batch_end", 8, 8),
        (EPOCHS, "on_train_batch_end", 6, 6),  # validation follows
        (EPOCHS, "on_validation_batch_end", 5, 12),  # the last validation: nothing is left but to repeat it
        (EPOCHS, "on_validation_end", 1, 7),
        (ACCUMULATING, "on_before_backward", 9, 5),  # in the first of the step's two micro-batches
        (ACCUMULATING, "on_validation_epoch_start", 1, 6),
        (WITHIN, "on_validation_start", 1, 4),
        (WITHIN, "on_validation_batch_end", 4, 10),  # the second epoch's fourth step
        (STEPS, "on_validation_batch_start", 4, 8),
    ],
)
def test_a_stopped_run_goes_on_exactly(
    settings: dict[str, Any], hook: str, n: int, step: int, fit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end, best, steps = fit("whole", **settings)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        fit("stopped", Tell(hook, n), **settings)
    assert stop.value.code == 128 + signal.SIGTERM
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"stopped by SIGTERM ('{last}' is written); the same command with --ckpt_path auto continues a fit"
    )
    assert read_checkpoint(last)["global_step"] == step
    vectors, keeper, reached = fit("stopped", ckpt=last, **settings)
    assert reached == steps
    assert (keeper.best_score, keeper.best_step) == (best.best_score, best.best_step)
    assert all(torch.equal(vectors[name], end[name]) for name in end)
    stored = [read_checkpoint(tmp_path / name / "checkpoints/best.ckpt") for name in ("whole", "stopped")]
    assert all(torch.equal(stored[0]["state_dict"][name], stored[1]["state_dict"][name]) for name in end)


def test_the_last_validation_of_so_many_steps_keeps_the_checkpoint_before(
    fit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {**STEPS, "max_steps": 8}
    end, _, _ = fit("whole", **settings)
    with pytest.raises(SystemExit):
        fit("stopped", Tell("on_validation_batch_end", 4), **settings)
    assert "stopped by SIGTERM; the same command" in capfd.readouterr().err
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    assert read_checkpoint(last)["global_step"] == 4
    vectors, keeper, _ = fit("stopped", ckpt=last, **settings)
    assert all(torch.equal(vectors[name], end[name]) for name in end)
    assert keeper._saved_step == 8


@pytest.mark.parametrize("hook", ["on_validation_batch_end", "on_train_batch_end", "on_fit_start"])
def test_the_handlers_of_before_come_back(hook: str, fit: Any) -> None:
    def mine(*_: Any) -> None:
        raise AssertionError("a handler of another program")

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, mine) for number in numbers}
    try:
        if hook != "on_fit_start":
            with pytest.raises(SystemExit):
                fit("stopped", Tell(hook, 1), max_epochs=1)
        else:  # before the Trainer's stage the signal is another's
            with pytest.raises(AssertionError, match="another program"):
                fit("stopped", Tell(hook, 1), max_epochs=1)
            fit("whole", max_epochs=1)
        assert all(signal.getsignal(number) is mine for number in numbers)
        with Preemption().listening():
            assert signal.getsignal(signal.SIGTERM) is not mine
            assert signal.getsignal(signal.SIGUSR1) is mine  # means nothing outside of SLURM
        assert all(signal.getsignal(number) is mine for number in numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_listening_covers_what_a_trainer_does_not(fit: Any, capfd: pytest.CaptureFixture[str]) -> None:
    preemption = Preemption()
    with preemption.listening():
        with pytest.raises(SystemExit) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the process is ending already
    assert stop.value.code == 143
    assert capfd.readouterr().err.count("stopped by SIGTERM; ") == 1


def test_a_second_sigterm_ends_the_process_at_once(fit: Any, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            fit("stopped", Tell("on_before_backward", 3, times=2), max_epochs=1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not (tmp_path / "stopped/checkpoints/last.ckpt").exists()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a job of one process, with a ``scontrol`` that writes down how it was called."""
    job = {"JOB_ID": "12", "JOB_NAME": "red", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1", "NODELIST": "here"}
    for name, value in {**job, "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    tool = tmp_path / "bin/scontrol"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called; test ! -e {tmp_path}/refuse || {{ echo no >&2; false; }}'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path / "called"


def test_sigusr1_under_slurm_requeues(
    slurm: Path, fit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    end, _, _ = fit("whole", max_epochs=1)
    with pytest.raises(SystemExit) as stop:
        fit("stopped", Tell("on_before_backward", 2, signal.SIGUSR1), max_epochs=1)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert slurm.read_text() == "requeue 12\n"
    last = tmp_path / "stopped/checkpoints/last.ckpt"
    assert f"stopped by SIGUSR1 ('{last}' is written); job 12 is requeued\n" in capfd.readouterr().err
    assert list((tmp_path / "stopped").glob("**/hpc_ckpt*")) == []  # what Lightning would have written within the step
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "43")
    vectors, _, _ = fit("stopped", ckpt=last, max_epochs=1)
    assert all(torch.equal(vectors[name], end[name]) for name in end)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # as if it came while the command line imports
    with pytest.raises(SystemExit), Preemption().listening():
        pass
    assert slurm.read_text() == "requeue 12\nrequeue 11_43\n"
    (tmp_path / "refuse").touch()
    with Preemption().listening(), pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert slurm.read_text() == "requeue 12\nrequeue 11_43\nrequeue 11_43\n"
    assert "job 11_43 could not be requeued (no): submit it again with --ckpt_path auto" in capfd.readouterr().err
