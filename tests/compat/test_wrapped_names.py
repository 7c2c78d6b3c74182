"""The names that parameters have inside torch's wrappers."""

import pytest
import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel

from red_lightning.compat.wrapped_names import unwrapped

OF = f"of torch {torch.__version__} has a new name: see compat/wrapped_names.py"


def names(module: nn.Module) -> list[str]:
    return [unwrapped(name) for name, _ in module.named_parameters()]


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))


EXPECTED = ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]


def test_a_compiled_module() -> None:
    whole = make()
    whole[1] = torch.compile(whole[1], backend="eager")  # type: ignore[call-overload]
    assert [name for name, _ in whole.named_parameters()] != EXPECTED
    assert names(whole) == EXPECTED, f"torch.compile's wrapper {OF}"


def test_a_checkpointed_module() -> None:
    whole = make()
    whole[1] = checkpoint_wrapper(whole[1])
    assert names(whole) == EXPECTED, f"checkpoint_wrapper {OF}"


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")  # for a single process
def test_a_sharded_module(tmp_path: pytest.TempPathFactory) -> None:
    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        whole = make()
        whole[1] = FullyShardedDataParallel(whole[1], use_orig_params=True, device_id=torch.device("cpu"))
        assert names(whole) == EXPECTED, f"FullyShardedDataParallel's wrapper {OF}"
    finally:
        destroy_process_group()


def test_other_names_stay() -> None:
    assert unwrapped("model.my_orig_mod.bias") == "model.my_orig_mod.bias"
