"""Skip optimizer steps with NaN or Inf, and stop a run that has nothing else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from red_lightning.callbacks.best_checkpoint import kept_checkpoints, not_finite
from red_lightning.callbacks.prediction_writer import of_all_ranks
from red_lightning.compat.norms import largest_magnitude
from red_lightning.errors import require_range

SHOWN = 20
"""How many rows a sentence names."""


class FiniteSteps(Callback):
    """Skips an optimizer step if a loss or a gradient of it, on any process, is NaN or infinite.

    A skipped step changes neither what is learned nor the optimizer's state: its gradients are dropped, and an
    optimizer leaves a parameter without a gradient alone. The step still counts, so that the learning rate of each
    step and the length of the run do not depend on what was skipped.

    Whether a step is finite is one reduction on the device over the step's losses and gradients; the processor waits
    for it once per optimizer step (not per micro-batch), because without the answer it cannot know whether to update.

    Two cases are left to others: with ``precision: 16-mixed`` the gradient scaler skips steps with infinite gradients
    itself (it meets them as it finds its scale, so they are not counted; a loss that is no number is). DeepSpeed keeps
    the gradients to itself, so that a loss that is no number cannot be skipped and stops the run at once.

    Args:
        most_in_a_row: So many steps are skipped one after another; the next one stops the run.
    """

    def __init__(self, most_in_a_row: int = 3) -> None:
        require_range("finite_steps.most_in_a_row", most_in_a_row, 0)
        self.most_in_a_row = most_in_a_row
        self.skipped_steps = 0
        self._in_a_row = 0
        self._rows: list[int] = []
        self._losses: list[tuple[Tensor, list[int]]] = []

    def state_dict(self) -> dict[str, int]:
        """The counts (part of each checkpoint)."""
        return {"skipped_steps": self.skipped_steps, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.skipped_steps, self._in_a_row = state_dict["skipped_steps"], state_dict["in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an interrupted step."""
        self._losses = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember which rows come."""
        self._rows = list(batch.get("row", ())) if isinstance(batch, Mapping) else []

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the loss of a micro-batch; look at it only where the optimizer step cannot be skipped."""
        self._losses.append((loss.detach(), self._rows))
        if trainer.strategy.handles_gradient_accumulation:
            losses, self._losses = self._losses, []
            if self._is_bad(trainer, [loss.detach()]):
                self._in_a_row += 1
                self._stop(trainer, losses)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients of a step that is not finite.

        Raises:
            UsageError: Too many in a row; names the step, the rows and the checkpoint that is left.
        """
        if trainer.strategy.handles_gradient_accumulation:
            return
        losses, self._losses = self._losses, []
        with_gradient = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        gradients = [] if scaled else [p.grad for p in with_gradient]
        if not self._is_bad(trainer, [*(loss for loss, _ in losses), *gradients]):
            self._in_a_row = 0
            return
        for parameter in with_gradient:
            parameter.grad = None
        self._in_a_row += 1
        if self._in_a_row > self.most_in_a_row:
            self._stop(trainer, losses)
        self.skipped_steps += 1
        step = trainer.global_step + 1
        _say(f"warning: the loss or a gradient of step {step} is no number, so the step was skipped")
        for logger in trainer.loggers:
            logger.log_metrics({"skipped_steps": self.skipped_steps}, step=step)

    def _is_bad(self, trainer: Trainer, values: Sequence[Tensor]) -> bool:
        """Whether any of the values, on any process, is NaN or infinite."""
        local = [value for value in map(_local, values) if value.numel()]  # a shard may be empty, no loss is
        # The largest absolute value rather than the norm, whose square overflows where the gradients do not.
        largest = largest_magnitude(local).float()
        nothing = largest - largest  # 0, or NaN where it is no number; so is the sum over the processes
        return math.isnan(trainer.strategy.reduce(nothing, reduce_op="sum"))

    def _stop(self, trainer: Trainer, losses: Sequence[tuple[Tensor, list[int]]]) -> None:
        """End the run on all processes."""
        count = "1 optimizer step was" if self._in_a_row == 1 else f"{self._in_a_row} optimizer steps in a row were"
        reason = f"the loss or the gradients of {count} no numbers, the last at step {trainer.global_step + 1}"
        rows = _suspects(of_all_ranks([(not bool(loss.isfinite().all()), rows) for loss, rows in losses]))
        if rows:
            shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
            reason += f" (training rows {shown}, counted from 0)"
        raise not_finite(reason, kept_checkpoints(trainer))


def _local(value: Tensor) -> Tensor:
    """This process' part of a sharded gradient."""
    to_local: Any = getattr(value, "to_local", None)
    return to_local() if to_local else value


def _suspects(processes: Sequence[Sequence[tuple[bool, list[int]]]]) -> list[int]:
    """The rows of the micro-batches whose loss is bad; those of all where only gradients are."""
    micro_batches = [micro_batch for process in processes for micro_batch in process]
    bad = {row for is_bad, rows in micro_batches if is_bad for row in rows}
    return sorted(bad or {row for _, rows in micro_batches for row in rows})


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
