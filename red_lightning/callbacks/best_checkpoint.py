"""Keep the best checkpoint on the validation split, and the last one to resume from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from red_lightning.callbacks.checkpoint_files import flush
from red_lightning.callbacks.criterion import Criterion, replacement
from red_lightning.compat.fit_loop import is_accumulating, validates_next
from red_lightning.errors import UsageError, cannot_write, nearest


class BestCheckpoint(Checkpoint):
    """Write ``best.ckpt`` when a validation metric improves strictly, and ``last.ckpt`` to resume from.

    ``last.ckpt`` is written after each validation and every ``every_n_steps`` steps. Files are written under another
    name, flushed and renamed, so a crash leaves the previous file complete. After a crash between ``best.ckpt`` and
    ``last.ckpt``, the resumed run repeats the validation.

    Args:
        monitor: Name of the validation metric.
        mode: Whether the smallest (``min``) or the largest (``max``) value is best.
        every_n_steps: Optimizer steps between two writes of ``last.ckpt``. null writes it after validations only.
        folder: Folder of the files. null is ``checkpoints`` in the run's folder.
        fallback: Metric to use if the package or the questions of a benchmark are missing. This is decided once, before
            training, and reported. null raises an error instead.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        folder: str | None = None,
        fallback: Criterion | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"checkpoint.every_n_steps is {every_n_steps}, but must be at least 1 or null")
        self.monitor, self.mode, self.every_n_steps, self.folder = monitor, mode, every_n_steps, folder
        self.wanted, self.fallback = Criterion(monitor, mode), fallback
        self.reason: str | None = None
        self.began: Mapping[str, Any] | None = None  # the state of the run that is resumed, if known before the fit
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._saved_step, self._resumes = 0, False
        self._directory = Path()

    @property
    def best_path(self) -> Path:
        """The checkpoint that validated best."""
        return self._directory / "best.ckpt"

    @property
    def chosen_path(self) -> Path:
        """The best checkpoint of this run, or its last one if it was never validated."""
        return self.best_path if self.best_step is not None else self.last_path

    @property
    def last_path(self) -> Path:
        """The checkpoint to resume from."""
        return self._directory / "last.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out where the files go, and that they can be written, before anything is trained."""
        root = self.folder or str(Path(trainer.default_root_dir) / "checkpoints")
        self._directory = Path(trainer.strategy.broadcast(root))
        if stage == "fit" and trainer.is_global_zero:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                probe = self._directory / ".writable"
                probe.touch()
                probe.unlink()
            except OSError as error:
                what = f"the checkpoint folder '{self._directory}'"
                raise cannot_write(what, error, "choose another with --run.folder") from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a folder of the user's with the checkpoints of another run: they would be replaced or tested."""
        if self.folder is not None and not self._resumes and self.last_path.exists():
            raise UsageError(
                f"checkpoint.folder '{self.folder}' holds the checkpoints of another run. Choose another folder, or "
                "continue that run with --ckpt_path last"
            )

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a metric that validation does not log, before training starts."""
        self._score(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write ``last.ckpt`` every ``every_n_steps`` steps (after the validation, if one follows this step)."""
        if self.every_n_steps is None:
            return
        step = trainer.global_step
        if step % self.every_n_steps or step == self._saved_step:
            return
        # a resumed run counts a step as not saved yet, and may be amid the next one
        if between_steps(trainer):
            self._save(trainer, self.last_path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best so far, and write."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = self._score(trainer)
        if math.isnan(score):
            raise not_finite(f"{self.monitor} became {score} at step {trainer.global_step}", kept_checkpoints(trainer))
        if self._is_better(score):
            self.best_score, self.best_step = score, trainer.global_step
            self._save(trainer, self.best_path)
        if not is_accumulating(trainer):  # half-gathered gradients cannot be resumed
            self._save(trainer, self.last_path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end state where nothing was written at the last step."""
        self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> None:
        """Write ``last.ckpt``, unless it holds this step already. Call it on all processes, between optimizer steps."""
        if self._saved_step != trainer.global_step:
            self._save(trainer, self.last_path)

    def settle(self, reason: str | None, way: str = "") -> str | None:
        """Decide whether ``monitor`` or ``fallback`` chooses; call it on all processes, before training.

        Args:
            reason: Why ``monitor`` cannot be measured; None if it can.
            way: What makes it measurable, as an imperative.

        Returns:
            What to tell the user, if the fallback chooses.

        Raises:
            UsageError: There is no fallback, or the run that is resumed began with ``monitor``.
        """
        found = replacement(self.wanted, self.fallback, self.began or {}, reason, way)
        if found is None:
            return None
        self.monitor, self.mode, self.reason = found.criterion.monitor, found.criterion.mode, found.reason
        return found.told

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and what chose it (part of each checkpoint)."""
        best = {"best_score": self.best_score, "best_step": self.best_step}
        return {**best, "monitor": self.monitor, "wanted": self.wanted.monitor, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far, if it was measured by the same metric."""
        self._resumes = True
        if not self.best_path.exists():  # the folder of another run
            return
        if self.began is None and (state_dict.get("reason") is None) != (self.reason is None):
            self.began = state_dict
            if said := self.settle(self.reason, f"make {self.wanted.monitor} measurable"):
                rank_zero_only(print)(said)
        if state_dict["monitor"] == self.monitor:
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def selection(self) -> dict[str, Any]:
        """By what the best checkpoint was chosen, for results.json.

        ``wanted`` is the metric that was asked for. ``reason`` says why it is not ``monitor``, or is null.
        """
        found = {"monitor": self.monitor, "mode": self.mode, "score": self.best_score, "step": self.best_step}
        return {**found, "wanted": self.wanted.monitor, "reason": self.reason}

    def _score(self, trainer: Trainer) -> float:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise never_logged(self.monitor, metrics)
        return float(metrics[self.monitor])

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return True
        return score < self.best_score if self.mode == "min" else score > self.best_score

    def _save(self, trainer: Trainer, path: Path) -> None:
        """Write under another name, flush, rename.

        Raises:
            UsageError: A process could not write; on all processes, so that none waits for another.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        error = _write(trainer, path)
        if not trainer.strategy.reduce_boolean_decision(error is None):
            way = f"put that right, and continue with --ckpt_path last ({_newest(kept_checkpoints(trainer))})"
            raise cannot_write(f"the checkpoint '{path}'", error, way) from error
        if path == self.last_path:
            self._saved_step = trainer.global_step


def _write(trainer: Trainer, path: Path) -> OSError | None:
    """Write a checkpoint; the error if this process could not."""
    temporary = path.with_suffix(".tmp")
    try:
        trainer.save_checkpoint(temporary, weights_only=False)
    except OSError as error:
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait for this one
        return _without(temporary, error)
    if trainer.is_global_zero:
        try:
            flush(temporary)
            temporary.replace(path)
        except OSError as error:
            return _without(temporary, error)
    return None


def _without(temporary: Path, error: OSError) -> OSError:
    """The error, and no half-written file, if that can be removed."""
    with suppress(OSError):
        temporary.unlink()
    return error


def never_logged(monitor: str, logged: Iterable[str], name: str = "checkpoint") -> UsageError:
    """The complaint about a monitored metric that does not exist."""
    return UsageError(f"{name}.monitor is '{monitor}', which validation never logs: {nearest(monitor, logged)}")


def not_finite(reason: str, checkpoints: Sequence[Path]) -> UsageError:
    """The complaint about a number that is none any more, with the newest checkpoint that is left.

    Args:
        reason: What became of what, and when.
        checkpoints: Where checkpoints may be, the best to resume from first.
    """
    return UsageError(
        f"{reason}, so the run was stopped ({_newest(checkpoints)}); "
        "lower model.learning_rate, or lengthen model.warmup_steps"
    )


def kept_checkpoints(trainer: Trainer) -> list[Path]:
    """Where a run's checkpoints may be, the best to resume from first."""
    keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, BestCheckpoint)]
    return [path for keeper in keepers for path in (keeper.last_path, keeper.best_path)]


def _newest(checkpoints: Sequence[Path]) -> str:
    kept = next((path for path in checkpoints if path.exists()), None)
    return f"the last good checkpoint is '{kept}'" if kept else "there is no checkpoint yet"


def between_steps(trainer: Trainer) -> bool:
    """Return whether a run can resume from the state after this training batch.

    It cannot within an accumulation, nor if Lightning validates right after the batch, which a resumed run would skip.
    """
    return not is_accumulating(trainer) and not validates_next(trainer)
