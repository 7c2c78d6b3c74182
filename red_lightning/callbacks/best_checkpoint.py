"""Keep the best checkpoint on the validation split, and the last one to resume from."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from red_lightning.errors import UsageError, nearest


class BestCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` when a validation metric is strictly better than ever, so the earlier of two equals stays.

    ``last.ckpt``, from which a run resumes, is written after each validation and every ``every_n_steps`` steps. Each
    file is written under another name, flushed and renamed: a crash at any moment leaves the previous one whole. If it
    comes between ``best.ckpt`` and ``last.ckpt``, the resumed run repeats that validation and writes ``best.ckpt``
    again.

    Args:
        monitor: Name of the metric that the task logs in validation.
        mode: Whether the smallest (``min``) or the largest (``max``) value is best.
        every_n_steps: Optimizer steps between two writes of ``last.ckpt``; null writes it after validations only.
        folder: Where the files go; null for ``checkpoints`` in the run's folder.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        folder: str | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"checkpoint.every_n_steps is {every_n_steps}, but must be at least 1 or null")
        self.monitor, self.mode, self.every_n_steps, self.folder = monitor, mode, every_n_steps, folder
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._saved_step = 0
        self._directory = Path()

    @property
    def best_path(self) -> Path:
        """The checkpoint that validated best."""
        return self._directory / "best.ckpt"

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
                reason = f"the checkpoint folder '{self._directory}' cannot be written: {error.strerror}"
                raise UsageError(f"{reason}; choose another with --run.folder") from error

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a metric that validation does not log, before training starts."""
        self._score(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write ``last.ckpt`` every ``every_n_steps`` steps (after the validation, if one follows this step)."""
        step = trainer.global_step
        if self.every_n_steps is None or step % self.every_n_steps or step == self._saved_step:
            return
        if not _validation_follows(trainer):
            self._save(trainer, self.last_path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best so far, and write."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = self._score(trainer)
        if math.isnan(score):
            raise not_finite(self.monitor, score, trainer.global_step, [self.last_path, self.best_path])
        if self._is_better(score):
            self.best_score, self.best_step = score, trainer.global_step
            self._save(trainer, self.best_path)
        if not trainer.fit_loop.epoch_loop._should_accumulate():  # half-gathered gradients cannot be resumed
            self._save(trainer, self.last_path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end state where nothing was written at the last step."""
        if self._saved_step != trainer.global_step:
            self._save(trainer, self.last_path)

    def state_dict(self) -> dict[str, Any]:
        """The best so far (part of each checkpoint)."""
        return {"best_score": self.best_score, "best_step": self.best_step, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far, if it was measured by the same metric."""
        if state_dict["monitor"] == self.monitor and self.best_path.exists():
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def selection(self) -> dict[str, Any]:
        """By what the best checkpoint was chosen, for results.json."""
        return {"monitor": self.monitor, "mode": self.mode, "score": self.best_score, "step": self.best_step}

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
        """Write under another name, flush, rename."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._saved_step = trainer.global_step
        temporary = path.with_suffix(".tmp")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        trainer.strategy.barrier("BestCheckpoint")


def never_logged(monitor: str, logged: Iterable[str]) -> UsageError:
    """The complaint about a monitored metric that does not exist."""
    return UsageError(f"checkpoint.monitor is '{monitor}', which validation never logs: {nearest(monitor, logged)}")


def not_finite(what: str, value: float, step: int, checkpoints: Iterable[Path]) -> UsageError:
    """The complaint about a loss that is no number any more, with the newest checkpoint that is left."""
    kept = next((path for path in checkpoints if path.exists()), None)
    left = f"the last good checkpoint is '{kept}'" if kept else "there is no checkpoint yet"
    return UsageError(
        f"{what} became {value} at step {step}, so the run was stopped ({left}); "
        "lower model.learning_rate, or lengthen model.warmup_steps"
    )


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates right after this training batch; a state saved before it would skip it on resume."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running anything that it contains.

    Raises:
        UsageError: The file is missing, cut short, or not a checkpoint.
    """
    if not Path(path).is_file():
        raise UsageError(f"the checkpoint '{path}' does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, ...
        raise UsageError(f"the checkpoint '{path}' is damaged or not a checkpoint; resume from another one") from error
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        raise UsageError(f"the checkpoint '{path}' was not written by red_lightning")
    return content
