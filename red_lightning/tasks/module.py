"""A LightningModule with little logging overhead."""

from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from red_lightning.compat.logged_results import replace_logged

LOSS = "train_loss"


class TaskModule(LightningModule):
    """Base of :class:`~red_lightning.tasks.backbone_task.BackboneTask`: what it does differently, a step does often."""

    def __setattr__(self, name: str, value: Any) -> None:
        """As a module does, at a tenth of the time for a text or None that replaces another.

        Lightning notes the hook that it calls as such an attribute, 50 times a step.
        """
        plain = self.__dict__
        if name in plain and (value is None or type(value) is str):
            plain[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def attached(self) -> Trainer | None:
        """The Trainer that runs the task; None if there is none, where ``trainer`` raises an error."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    def log_train_loss(self, loss: Tensor, rows: int) -> None:
        """Log the loss of a micro-batch as ``train_loss``; call it in ``training_step``.

        Only the first one of an epoch goes through Lightning's ``log``, which takes as long as all its hooks of a step
        together; the others replace its value. It is written to the progress bar only where there is one: Lightning
        reads what is shown there after each micro-batch, and so waits for the device.

        Args:
            loss: A scalar.
            rows: The rows that it is the mean of.
        """
        trainer = self.attached
        if trainer is None or not replace_logged(trainer, "training_step", LOSS, loss.detach(), rows):
            bar = trainer is not None and trainer.progress_bar_callback is not None
            self.log(LOSS, loss, prog_bar=bar, batch_size=rows)


def measure(task: Any) -> dict[str, int]:
    """Count the parameters of a task's backbone, those of it that train, their tensors, and those of the head."""
    trained = [parameter for parameter in task.backbone.parameters() if parameter.requires_grad]
    return {
        "backbone": task.backbone.num_parameters(),
        "trained": sum(parameter.numel() for parameter in trained),
        "tensors": len(trained),
        "head": sum(p.numel() for name, p in task.named_parameters() if not name.startswith("backbone.")),
    }
