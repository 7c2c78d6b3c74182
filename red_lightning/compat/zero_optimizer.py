"""DeepSpeed's ZeRO optimizer, and how Lightning starts its engine.

DeepSpeed (0.17 to 0.19) has public functions that read and write the state of one parameter (``deepspeed.utils``), but
none that makes an empty state or says how a parameter is divided. Without these functions checkpoints of the other
strategies cannot be resumed under DeepSpeed.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether anything follows the steps of an optimizer (``register_step_post_hook``), which DeepSpeed skips.

    torch (2.4 to 2.13) keeps these hooks in ``Optimizer._optimizer_step_post_hooks`` and has no other way to ask.
    """
    return bool(optimizer._optimizer_step_post_hooks)


def read_settings_again(strategy: Any) -> None:
    """Have Lightning's DeepSpeedStrategy take accumulation and clipping from the next Trainer stage.

    Lightning (2.6) fills in DeepSpeed's configuration once, and marks that by the private ``_config_initialized``. A
    fit after a test would accumulate and clip as the test did, that is not at all.
    """
    for key in ("gradient_accumulation_steps", "gradient_clipping"):
        strategy.config.pop(key, None)
    strategy._config_initialized = False


def start_engine(strategy: Any, model: Any) -> Any:
    """Return DeepSpeed's engine of a model that is not trained, divided by the strategy's configuration.

    Lightning (2.6) calls ``deepspeed.initialize`` in ``DeepSpeedStrategy._setup_model_and_optimizer``. Its public
    ``setup`` removes all hooks of a model that is only evaluated, those of the edits too.
    """
    return strategy._setup_model_and_optimizer(model, None)[0]


def fill_state(zero: Any, stage_3: bool, make: Callable[[Tensor], dict[str, Any]]) -> None:
    """Give the optimizer a state for each flat part that this process holds, before values are written into it.

    Args:
        zero: DeepSpeed's optimizer around the one that steps.
        stage_3: Whether the weights are divided too.
        make: Returns the state of a flat part.
    """
    for flat in zero.fp32_partitioned_groups_flat if stage_3 else zero.single_partition_of_fp32_groups:
        zero.optimizer.state[flat] = make(flat)
    if not stage_3:
        zero._lazy_init_hp_params_optimizer_state()  # stage 2 links parameters to their state at the first step


def size_of_part(parameter: Any) -> int:
    """Return how many values of a parameter each process holds under stage 3; the last part is padded."""
    return int(parameter.ds_tensor.numel())
