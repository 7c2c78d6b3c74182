"""What is used of DeepSpeed and of Lightning's strategy for it (compat/zero_optimizer, compat/device_mesh)."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn

from red_lightning.compat.device_mesh import divide_over_all
from red_lightning.compat.zero_optimizer import fill_state, has_step_hooks, read_settings_again
from red_lightning.strategies import FSDP, FSDP2, DeepSpeed


def test_hooks_after_a_step_are_seen() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert not has_step_hooks(optimizer)
    handle = optimizer.register_step_post_hook(lambda *_: None)
    assert has_step_hooks(optimizer)
    handle.remove()
    assert not has_step_hooks(optimizer)


@pytest.mark.parametrize(
    "base, name, used_by",
    [
        (DeepSpeedStrategy, "_initialize_deepspeed_train", "init_deepspeed"),
        (DeepSpeedStrategy, "_initialize_deepspeed_inference", "init_deepspeed"),
        (DeepSpeedStrategy, "_setup_model_and_optimizer", "_initialize_deepspeed_train"),
        (DeepSpeedStrategy, "_config_initialized", "_init_config_if_needed"),
        (DeepSpeedStrategy, "precision_plugin", "_format_config"),
        (FSDPStrategy, "_setup_model", "setup"),
        (FSDPStrategy, "precision_plugin", "mixed_precision_config"),
        (ModelParallelStrategy, "_data_parallel_size", "setup_environment"),
    ],
)
def test_lightning_uses_what_the_strategies_replace(base: type[Strategy], name: str, used_by: str) -> None:
    """A name that a release renames would be replaced without any effect."""
    used = inspect.getattr_static(base, used_by)
    assert f"self.{name}" in inspect.getsource(getattr(used, "fget", None) or used)


@pytest.mark.parametrize("own, names", [(FSDP, ["_setup_model"]), (DeepSpeed, ["_initialize_deepspeed_train"])])
def test_replaced_methods_take_the_same_arguments(own: Any, names: list[str]) -> None:
    theirs = next(base for base in own.__mro__ if base in (FSDPStrategy, DeepSpeedStrategy))
    for name in names:
        assert [*inspect.signature(getattr(own, name)).parameters] == [
            *inspect.signature(getattr(theirs, name)).parameters
        ]


def test_the_model_is_divided_over_all_processes() -> None:
    strategy = FSDP2()
    strategy.num_nodes, strategy.parallel_devices = 2, [torch.device("cpu")] * 3
    assert "_data_parallel_size" in vars(strategy)
    divide_over_all(strategy)
    assert strategy._data_parallel_size == 6


def test_settings_are_read_again() -> None:
    config = {"gradient_accumulation_steps": 1, "gradient_clipping": 0.0, "zero_optimization": {}}
    strategy = SimpleNamespace(config=config, _config_initialized=True)
    read_settings_again(strategy)
    assert config == {"zero_optimization": {}}
    assert not strategy._config_initialized


def test_a_state_is_made_for_each_part() -> None:
    parts, linked = [torch.ones(2), torch.ones(3)], []
    zero = SimpleNamespace(
        optimizer=SimpleNamespace(state={}),
        single_partition_of_fp32_groups=parts,
        fp32_partitioned_groups_flat=parts[:1],
        _lazy_init_hp_params_optimizer_state=lambda: linked.append(True),
    )
    fill_state(zero, False, lambda flat: {"exp_avg": torch.zeros_like(flat)})
    assert [state["exp_avg"].tolist() for state in zero.optimizer.state.values()] == [[0, 0], [0, 0, 0]]
    assert linked == [True]
    zero.optimizer.state.clear()
    fill_state(zero, True, lambda flat: {})
    assert len(zero.optimizer.state) == len(linked) == 1


def test_deepspeed_has_what_is_used_of_it() -> None:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.zero import partition_parameters, stage3, stage_1_and_2
    from deepspeed.utils import (  # noqa: F401 - public, but younger than the rest
        safe_get_full_optimizer_state,
        safe_set_full_optimizer_state,
        safe_set_local_optimizer_state,
    )

    assert hasattr(stage_1_and_2.DeepSpeedZeroOptimizer, "_lazy_init_hp_params_optimizer_state")
    assert "self.single_partition_of_fp32_groups" in inspect.getsource(stage_1_and_2)
    assert "self.fp32_partitioned_groups_flat" in inspect.getsource(stage3)
    assert ".ds_tensor" in inspect.getsource(partition_parameters)
