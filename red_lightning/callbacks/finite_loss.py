"""Stop a run whose loss is no number any more."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from red_lightning.callbacks.best_checkpoint import BestCheckpoint, not_finite


class FiniteLoss(Callback):
    """Stops before a NaN or infinite loss reaches what is learned; the last checkpoint stays as it is."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            UsageError: Names the step and the checkpoint that is left.
        """
        if loss.isfinite().all():
            return
        keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, BestCheckpoint)]
        kept = [path for keeper in keepers for path in (keeper.last_path, keeper.best_path)]
        raise not_finite("the loss", loss.mean().item(), trainer.global_step + 1, kept)
