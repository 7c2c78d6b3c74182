"""Stop a run cleanly on a signal, so that it can resume."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from red_lightning.callbacks.best_checkpoint import BestCheckpoint, between_steps
from red_lightning.compat.cluster import leave_requeueing
from red_lightning.compat.fit_loop import is_accumulating, repeat_validation


class Preemption(Callback):
    """Ends a run in order on SIGTERM, and under SLURM on SIGUSR1, after which the job is requeued.

    While a model trains, the signal is only noted. After the optimizer step (never within an accumulation, whose
    half-gathered gradients could not be resumed) or the validation batch at hand, all processes agree to stop,
    whichever of them got it; :class:`BestCheckpoint` writes ``last.ckpt``, and the first process says how to continue.
    A resumed run repeats a validation that was broken off, and is then what it would have been. (The validation after
    the last of ``trainer.max_steps`` cannot be repeated: there the checkpoint before it is kept.) A second SIGTERM ends
    the process at once.

    Everywhere else (loading, ``test``, ``predict``) there is nothing to save, and the process ends right away. Outside
    of the Trainer's stages that takes :meth:`listening`.

    The end is a ``SystemExit``: with status 128 + the signal's number in the first process (143 after SIGTERM), with 0
    in the others. The handlers of before are back when the Trainer ends. SLURM must send SIGUSR1 early enough for a
    step and a write: ``--signal=SIGUSR1@90``.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._training = False
        self._stopping = False
        self._validation_due = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen from before a Trainer is made until after it has ended; then bring back the handlers of before."""
        before = {number: signal.getsignal(number) for number in _signals()}
        try:
            self._listen()
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning from saving in the middle of a step."""
        self._received, self._training, self._stopping = None, False, False
        leave_requeueing(trainer)

    # Lightning sets its own handlers before each stage (its SIGTERM handler waits for the other processes, wherever
    # they are) and brings back those of before at its end, so ours are set in the first hooks after that.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, and repeat a validation that was broken off."""
        self._training = True
        self._listen()
        if self._validation_due:
            self._validation_due = False
            repeat_validation(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; stop before the validation if told so."""
        self._listen()
        self._stop_in_validation(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop amid the validation if told so."""
        self._stop_in_validation(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self._listen()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self._listen()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop after the optimizer step if told so (in the validation, if one follows this step)."""
        told = self._received is not None or trainer.world_size > 1  # other processes may be told
        if told and between_steps(trainer):
            self._stop_if_told(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if told so after the last step."""
        self._training = False
        if self._received is not None:
            self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Pass the signal on to the processes that this one started, if they do not know of it."""
        if self._stopping and not self._training and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        self._training = False

    def state_dict(self) -> dict[str, bool]:
        """Whether a validation was broken off (part of each checkpoint)."""
        return {"validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        """Find out whether a validation was broken off."""
        self._validation_due = state_dict["validation_due"]

    def _listen(self) -> None:
        for number in _signals():
            signal.signal(number, self._receive)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])  # the command line holds SIGUSR1 back until now

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._stopping:  # SLURM sends SIGTERM as well when it requeues
            return
        self._received = self._received or number
        if not self._training:
            self._stop()
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)  # the second one ends the process, whatever it waits for

    def _stop_in_validation(self, trainer: Trainer) -> None:
        if self._training:
            last_step = trainer.global_step == trainer.max_steps  # Lightning would not come back to this validation
            self._validation_due = True
            self._stop_if_told(trainer, save=not is_accumulating(trainer) and not last_step)
            self._validation_due = False

    def _stop_if_told(self, trainer: Trainer, save: bool = True) -> None:
        """Stop if any process was told to.

        The agreement is one number summed over the processes. That waits for the step on the device, but so does
        Lightning's own exchange of a number before each micro-batch.
        """
        agree = trainer.strategy.reduce_boolean_decision
        if agree(self._received is not None, all=False):
            requeue = agree(self._received not in (None, signal.SIGTERM), all=False)
            self._received = signal.SIGUSR1 if requeue else signal.SIGTERM
            keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), None)
            if keeper is not None and save:
                keeper.save_now(trainer)
                self._stop(keeper.last_path)
            self._stop()

    def _stop(self, written: Path | None = None) -> NoReturn:
        assert self._received is not None
        self._stopping = True
        self._listen()
        if getattr(rank_zero_only, "rank", 0) != 0:
            raise SystemExit(0)  # Lightning kills all processes if one that it started fails
        end = (
            _requeue() if self._received != signal.SIGTERM else "the same command with --ckpt_path auto continues a fit"
        )
        what = f" ('{written}' is written)" if written else ""
        text = f"stopped by {signal.Signals(self._received).name}{what}; {end}\n"
        os.write(2, text.encode())  # print could be what the signal has interrupted
        raise SystemExit(128 + self._received)


def _signals() -> list[signal.Signals]:
    """The signals that end a run; none outside of the main thread, which alone can handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.SIGTERM, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])]


def _requeue() -> str:
    """Have SLURM start the job again.

    Returns:
        What a user is told about it.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # the bare number may mean the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        return f"job {job} could not be requeued ({reason}): submit it again with --ckpt_path auto"
    return f"job {job} is requeued"
