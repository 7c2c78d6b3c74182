"""Stop a run whose loss is no number any more."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from red_lightning.callbacks.best_checkpoint import BestCheckpoint
from red_lightning.errors import UsageError


class FiniteLoss(Callback):
    """Stops before a NaN or infinite loss reaches what is learned; the last checkpoint stays as it is."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            UsageError: Names the step and the checkpoint that is left.
        """
        if loss.isfinite().all():
            return
        kept = [c.last_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)]
        left = next((f"the last good checkpoint is '{p}'" for p in kept if p.exists()), "there is no checkpoint yet")
        raise UsageError(
            f"the loss became {loss.mean().item()} at step {trainer.global_step + 1}, so the run was stopped ({left}); "
            "lower model.learning_rate, or lengthen model.warmup_steps"
        )
