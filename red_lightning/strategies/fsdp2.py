"""FSDP2: PyTorch's fully sharded data parallelism by parameter (``fully_shard``)."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from red_lightning.backbones.sharded_loading import load_sharded
from red_lightning.backbones.sharding import blocks, generate_in_step, is_divided, trained
from red_lightning.compat.device_mesh import divide_over_all
from red_lightning.errors import UsageError
from red_lightning.strategies.one_file import MeanGradients, OneFile


class FSDP2(OneFile, MeanGradients, ModelParallelStrategy):
    """Shard the backbone's weights over all processes, and gather one block at a time.

    The backbone is sharded before its weights are read, and each process reads only its part of the files. Parameters
    that a method adds are replicated; trainable weights of the backbone are sharded.

    Args:
        process_group_backend: ``nccl`` or ``gloo``. null chooses by the device.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        """Start the processes' communication; all of them work on different rows."""
        divide_over_all(self)
        super().setup_environment()

    def load_backbone(self, task: Any) -> nn.Module:
        """The task's pretrained backbone, divided over the processes.

        Args:
            task: It says what to load (``load_backbone``, ``source``, ``backbone_options``).
        """
        return load_sharded(task.load_backbone, task.source, task.backbone_options, self.shard, self.root_device)

    def shard(self, backbone: nn.Module) -> None:
        """Divide each block, then what is left (embeddings, head)."""
        mesh = self.device_mesh["data_parallel"]
        for block in blocks(backbone):
            fully_shard(block, mesh=mesh)
        fully_shard(backbone, mesh=mesh)
        generate_in_step(backbone)

    def setup(self, trainer: Trainer) -> None:
        """Divide what trains beside the backbone's own weights as these are, for they are clipped together.

        Raises:
            UsageError: The backbone was loaded whole, before this strategy could divide it.
        """
        if not isinstance(self._task.backbone, FSDPModule):
            raise UsageError(
                "the task's backbone was loaded before the strategy FSDP2 could divide it: make a new task"
            )
        if any(map(is_divided, trained(self._task).values())):
            for child in self._task.children():
                if not isinstance(child, FSDPModule) and any(True for _ in child.parameters()):
                    fully_shard(child, mesh=self.device_mesh["data_parallel"])
        super().setup(trainer)

    def on_validation_start(self) -> None:
        """Gather what is outside the blocks: ``generate`` and encoders called alone go round the backbone's forward."""
        self._task.backbone.unshard()

    def on_test_start(self) -> None:
        """See :meth:`on_validation_start`."""
        self._task.backbone.unshard()

    def on_predict_start(self) -> None:
        """See :meth:`on_validation_start`."""
        self._task.backbone.unshard()
