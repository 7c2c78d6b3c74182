"""FSDP 1: PyTorch's fully sharded data parallelism by flat parameters (``FullyShardedDataParallel``)."""

from typing import Any

from lightning.pytorch.plugins.precision import FSDPPrecision, Precision
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp.wrap import CustomPolicy

from red_lightning.backbones.sharding import blocks, generate_in_step, trained
from red_lightning.compat.strategy_hooks import WrapsModel
from red_lightning.errors import UsageError
from red_lightning.strategies.one_file import MeanGradients, OneFile


class FSDP(OneFile, MeanGradients, WrapsModel):
    """Shard the frozen weights over all processes, and gather one block at a time.

    Trainable parameters are replicated, so they must be the smaller part of the model. Each process first loads the
    whole backbone into CPU memory; :class:`FSDP2` does not.

    Args:
        process_group_backend: ``nccl`` or ``gloo``. null chooses by the device.
    """

    _given_precision: Any = None

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(process_group_backend=process_group_backend)
        self._wrapped: FullyShardedDataParallel | None = None

    @property
    def mixed_precision_config(self) -> MixedPrecision | None:
        """In which dtype weights are gathered: as they are stored, unless ``trainer.precision`` is mixed."""
        return super().mixed_precision_config if "mixed" in self.precision_plugin.precision else None

    @property
    def precision_plugin(self) -> FSDPPrecision:
        """Lightning's, which leaves each weight its dtype here, and can clip by norm: what is clipped is whole."""
        return self._given_precision if isinstance(self._given_precision, _Precision) else _Precision("32-true")

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        self._given_precision = None if plugin is None else _Precision(plugin.precision)

    def wrap(self, model: Any) -> nn.Module:
        """Wrap the task, once: a test after the fit finds it wrapped."""
        if self._wrapped is None or self._wrapped.module is not model:
            self._wrapped = self._wrap(model)
        return self._wrapped

    def _wrap(self, task: Any) -> FullyShardedDataParallel:
        if self.world_size == 1:
            raise UsageError(
                "the strategy FSDP divides the backbone over several processes, but there is one; "
                "give --trainer.devices, or leave --trainer.strategy out"
            )
        kept = list(trained(task).values())
        if 2 * sum(p.numel() for p in kept) > sum(p.numel() for p in task.parameters()):
            raise UsageError(
                "the strategy FSDP divides frozen weights only, but most of the model trains; "
                "give --trainer.strategy configs/trainer/fsdp2.yaml"
            )
        for parameter in kept:
            parameter.data = parameter.data.to(self.root_device)
        generate_in_step(task.backbone)
        units = {id(block) for block in blocks(task.backbone)}
        return FullyShardedDataParallel(
            task,
            auto_wrap_policy=CustomPolicy(lambda module: id(module) in units),
            mixed_precision=self.mixed_precision_config,
            device_id=self.root_device,
            ignored_states=kept,
            use_orig_params=True,
        )


class _Precision(FSDPPrecision):
    convert_module = Precision.convert_module
    clip_grad_by_norm = Precision.clip_grad_by_norm
