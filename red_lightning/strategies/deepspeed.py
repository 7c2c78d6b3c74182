"""DeepSpeed's ZeRO, stages 2 and 3."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from torch import Tensor, nn
from torch.optim import Optimizer

from red_lightning.backbones.sharding import generate_in_step, is_compiled, refuse_sharding, trained
from red_lightning.compat.strategy_hooks import StartsEngine
from red_lightning.compat.zero_optimizer import (
    fill_state,
    has_step_hooks,
    read_settings_again,
    size_of_part,
    start_engine,
)
from red_lightning.errors import UsageError
from red_lightning.strategies.one_file import OneFile


class DeepSpeed(OneFile, StartsEngine):
    """DeepSpeed's ZeRO, stages 2 and 3. Checkpoints are single files, as with the other strategies.

    Each process first loads the whole backbone into CPU memory; :class:`FSDP2` does not.

    Args:
        stage: 2 shards gradients and optimizer state, which are small here; 3 shards the weights too.
        process_group_backend: ``nccl`` or ``gloo``. null chooses by the device.
    """

    _given_precision: Any = None

    def __init__(self, stage: Literal[2, 3] = 2, process_group_backend: str | None = None) -> None:
        if find_spec("deepspeed") is None:
            raise UsageError("the strategy DeepSpeed needs a package: pip install 'red-lightning[deepspeed]'")
        super().__init__(stage=stage, logging_batch_size_per_gpu=1, process_group_backend=process_group_backend)
        self._engine: Any = None

    @property
    def precision_plugin(self) -> Precision:
        """Lightning's, which leaves each weight its dtype here."""
        return self._given_precision or _Precision("32-true")

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        self._given_precision = None if plugin is None else _Precision(plugin.precision)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Before: DeepSpeed copies what trains when it starts."""
        return False

    def setup_environment(self) -> None:
        """Start the processes' communication.

        Raises:
            UsageError: There is no GPU.
        """
        if not isinstance(self.accelerator, CUDAAccelerator):
            raise UsageError(
                "the strategy DeepSpeed needs CUDA GPUs; give --trainer.strategy configs/trainer/fsdp2.yaml"
            )
        super().setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Generator[None, None, None]:
        """Build the model whole, for transformers cannot fill one that is divided; :meth:`setup` divides it."""
        yield

    def setup(self, trainer: Trainer) -> None:
        """Start DeepSpeed with this run's accumulation and clipping (a test before the fit knew neither)."""
        read_settings_again(self)
        super().setup(trainer)
        if self.zero_stage_3:
            refuse_sharding(compiled=is_compiled(self._task.backbone))
            generate_in_step(self._task.backbone)

    def start_training(self, model: nn.Module) -> None:
        """Start an engine, in the place of an earlier one."""
        if self._engine is not None:
            self._engine.destroy()
        super().start_training(model)
        self._engine = self.model
        if has_step_hooks(self._engine.optimizer.optimizer):
            culprit = "model.decay_towards identity"
            if self._task.method.follows_steps:
                culprit = f"model.method {type(self._task.method).__name__}"
            raise UsageError(
                f"DeepSpeed allows nothing after an optimizer step, so {culprit} does not work with it; choose another "
                "trainer.strategy"
            )

    def start_evaluation(self, model: nn.Module) -> None:
        """Evaluate with the engine there is; Lightning's own way removes all hooks, those of the edits too."""
        if self._engine is None and self.zero_stage_3:
            self._engine = start_engine(self, model)
        if self._engine is None:
            self.model_to_device()
        else:
            self.model = self._engine

    def teardown(self) -> None:
        """Leave the model where it is, divided, for the test after the fit."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Copy what was trained into what may be divided already."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(trained(self._task).values()), modifier_rank=0):
            super().load_model_state_dict(checkpoint, strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state, by parameter name, as the plain optimizer would have it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        zero: Any = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        parameters = trained(self._task)
        (group,) = zero.optimizer.param_groups
        kept: dict[str, Tensor] = next(iter(zero.optimizer.state.values()), {})
        state = {
            name: {
                key: safe_get_full_optimizer_state(parameter, key).cpu() if value.dim() else value.clone()
                for key, value in kept.items()
            }
            for name, parameter in parameters.items()
            if kept
        }
        return {"state": state, "param_groups": [{**group, "params": list(parameters)}]}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its part of the state."""
        ((saved),) = checkpoint["optimizer_states"]
        zero: Any = self.optimizers[0]
        (group,) = zero.optimizer.param_groups
        group.update({key: value for key, value in saved["param_groups"][0].items() if key != "params"})
        if not saved["state"]:
            return
        like = next(iter(saved["state"].values()))

        def empty(flat: Tensor) -> dict[str, Any]:
            return {key: torch.zeros_like(flat) if value.dim() else value.clone() for key, value in like.items()}

        fill_state(zero, self.zero_stage_3, empty)
        for name, parameter in trained(self._task).items():
            for key, value in saved["state"][name].items():
                if value.dim():
                    self._set(parameter, key, value.to(self.root_device))

    def _set(self, parameter: Any, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not self.zero_stage_3:
            safe_set_full_optimizer_state(parameter, value, key)
            return
        size = size_of_part(parameter)
        padded = nn.functional.pad(value.flatten(), (0, size * self.world_size - value.numel()))
        safe_set_local_optimizer_state(parameter, padded.split(size)[self.global_rank], key)


class _Precision(DeepSpeedPrecision):
    convert_module = Precision.convert_module
