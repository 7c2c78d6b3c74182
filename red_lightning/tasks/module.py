"""A module whose steps take little of Lightning's time."""

from typing import Any

from lightning import LightningModule
from torch import Tensor

LOSS = "train_loss"


class TaskModule(LightningModule):
    """Base of :class:`~red_lightning.tasks.base.BackboneTask`: what it does differently, a step does often."""

    def __setattr__(self, name: str, value: Any) -> None:
        """As a module does, at a tenth of the time for what Lightning notes 50 times a step: the hook that it calls."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def log_train_loss(self, loss: Tensor, rows: int) -> None:
        """Log the loss of a micro-batch as ``train_loss``; call it in ``training_step``.

        Only the first one of an epoch goes through Lightning's ``log``, which takes as long as all its hooks of a step
        together; the others replace its value. It is written to the progress bar only where there is one: Lightning
        reads what is shown there after each micro-batch, and so waits for the device.

        Args:
            loss: A scalar.
            rows: The rows that it is the mean of.
        """
        results: Any = self._trainer and self._trainer._results
        key = f"{self._current_fx_name}.{LOSS}"
        if results and key in results and not results[key].has_reset:
            results.update_metrics(key, loss.detach(), rows)
        else:
            bar = self._trainer and self._trainer.progress_bar_callback
            self.log(LOSS, loss, prog_bar=bar is not None, batch_size=rows)
