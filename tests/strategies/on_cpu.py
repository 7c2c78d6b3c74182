"""The strategies by name, with what DeepSpeed needs to run without a GPU."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DDPStrategy

from red_lightning.backbones.sharding import trained
from red_lightning.strategies import FSDP, FSDP2, DeepSpeed


class DeepSpeedOnCPU(DeepSpeed):
    """Lightning and ours ask for a GPU in two places; DeepSpeed itself does not."""

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> Any:
        import deepspeed

        engine, wrapped, *_ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),  # a CPU has no index
            config=self.config,
            model=model,
            model_parameters=trained(model).values(),
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, wrapped


STRATEGIES: dict[str, Callable[[], Any]] = {
    "auto": lambda: "auto",
    "ddp": DDPStrategy,
    "fsdp": FSDP,
    "fsdp2": FSDP2,
    "zero2": partial(DeepSpeedOnCPU, 2, process_group_backend="gloo"),
    "zero3": partial(DeepSpeedOnCPU, 3, process_group_backend="gloo"),
}
