"""Where Lightning's strategies wrap a model: in private methods, for which they have no public counterpart."""

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import nn


class WrapsModel(FSDPStrategy):
    """An FSDP strategy whose :meth:`wrap` is public.

    Lightning: ``FSDPStrategy.setup`` calls ``_setup_model``, seen in 2.6. Without it Lightning wraps the model its own
    way, which flattens trainable parameters into the frozen weights.
    """

    def wrap(self, model: Any) -> nn.Module:
        """Return the model that forward passes call."""
        return super()._setup_model(model)

    def _setup_model(self, model: Any) -> nn.Module:
        return self.wrap(model)


class StartsEngine(DeepSpeedStrategy):
    """A DeepSpeed strategy whose ways of starting the engine are public.

    Lightning: ``DeepSpeedStrategy.init_deepspeed`` calls ``_initialize_deepspeed_train`` and
    ``_initialize_deepspeed_inference``, seen in 2.6. Without them an evaluation removes the hooks of the edits.
    """

    def start_training(self, model: nn.Module) -> None:
        """Start the engine for a fit."""
        super()._initialize_deepspeed_train(model)

    def start_evaluation(self, model: nn.Module) -> None:
        """Start the engine for anything else."""
        super()._initialize_deepspeed_inference(model)

    def _initialize_deepspeed_train(self, model: nn.Module) -> None:
        self.start_training(model)

    def _initialize_deepspeed_inference(self, model: nn.Module) -> None:
        self.start_evaluation(model)
