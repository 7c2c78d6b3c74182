"""Base of the sharded strategies: checkpoints of a single process, and averaged gradients.

What trains is tiny beside the backbone, so each process keeps it whole, unless it is some of the backbone's weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer

from red_lightning.backbones.sharding import divided_like, full_parameters, is_divided, trained, whole


class OneFile(Strategy):
    """Part of a sharded strategy: its checkpoint is one file, the same that a single process writes."""

    def setup(self, trainer: Trainer) -> None:
        """Evaluate without gradients, but not in inference mode: weights gathered in it cannot be trained through."""
        evaluations = (trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
        for loop in (trainer.fit_loop.epoch_loop.val_loop, *evaluations):
            loop.inference_mode = False
        super().setup(trainer)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the optimizer's state over, as it does for a single process."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What trains, by name."""
        return full_parameters(self._task)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Copy what was trained; the task has checked that the names fit."""
        parameters = trained(self._task)
        for name, value in checkpoint["state_dict"].items():
            parameters[name].copy_(divided_like(value, parameters[name]))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state, by parameter name, of whole tensors."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return _changed(plain.state_dict(), lambda _, value: whole(value))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Divide the state as the parameters are divided, and load it."""
        parameters = trained(self._task)
        states = [
            _changed(state, lambda name, value: divided_like(value, parameters.get(name)))
            for state in checkpoint["optimizer_states"]
        ]
        Strategy.load_optimizer_state_dict(self, {"optimizer_states": states})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write the file, in the first process."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file, in each process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    @property
    def _task(self) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module


class MeanGradients(Strategy):
    """Part of a strategy that keeps what trains whole on each process: gradients are means over the processes."""

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **options: Any
    ) -> Any:
        """Take the mean of the gradients over the processes before they are clipped and used."""

        def closure_and_mean() -> Any:
            result = closure()
            average_gradients(optimizer)
            return result

        return super().optimizer_step(optimizer, closure_and_mean, model, **options)


def average_gradients(optimizer: Optimizer) -> None:
    """Replace the gradients by their means over all processes; those of sharded parameters are means already."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None and not is_divided(p)]
    if not gradients:
        return
    together = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(together)
    together /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _changed(state: dict[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    changed = {
        name: {key: change(name, value) for key, value in entry.items()} for name, entry in state["state"].items()
    }
    return {**state, "state": changed}
