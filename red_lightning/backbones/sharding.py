"""Sharded backbones: their blocks, and gathering their tensors."""

from typing import Any

from torch import Tensor, distributed, nn

from red_lightning.backbones.quantization import is_quantized
from red_lightning.compat.wrapped_names import unwrapped
from red_lightning.errors import UsageError
from red_lightning.families import architecture_of

_IN_STEP = "generates_in_step"
"""The attribute of a backbone for which :func:`generate_in_step` was called."""


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by the names that they had before anything was wrapped around their modules."""
    return {unwrapped(name): p for name, p in module.named_parameters() if p.requires_grad}


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The backbone's blocks, which are the units that are gathered one after another.

    Raises:
        UsageError: The family has no record of what its blocks are called, or the weights are quantized, or compiled.
    """
    refuse_sharding(is_quantized(backbone), is_compiled(backbone))
    pattern = architecture_of(backbone.config).block_pattern()
    return [module for name, module in backbone.named_modules() if pattern.fullmatch(name)]


def is_compiled(backbone: nn.Module) -> bool:
    """Whether torch.compile makes kernels for the backbone's blocks."""
    return getattr(backbone, "blocks_are_compiled", False) is True


def refuse_sharding(quantized: bool = False, compiled: bool = False) -> None:
    """Refuse to shard a backbone that cannot be.

    Args:
        quantized: Whether its weights are quantized: their scales would not be sharded with them.
        compiled: Whether its blocks are compiled: the kernels expect all weights.

    Raises:
        UsageError: It is quantized or compiled.
    """
    for refused, state, option in ((quantized, "quantized", "quantization"), (compiled, "compiled", "compile")):
        if refused:
            raise UsageError(
                f"a {state} backbone cannot be sharded; leave model.backbone_options.{option} out, or give "
                "--trainer.strategy ddp, with which each process holds all of it"
            )


def generate_in_step(backbone: nn.Module) -> None:
    """Let decoding go on in each process until the last is done: a forward pass needs them all.

    A call of the backbone's own ``generate`` from elsewhere has to pass ``synced_gpus=True``.
    """
    setattr(backbone, _IN_STEP, True)


def generates_in_step(backbone: nn.Module) -> bool:
    """Whether :func:`generate_in_step` was asked for."""
    return getattr(backbone, _IN_STEP, False) is True


def needs_every_process(backbone: nn.Module) -> bool:
    """Whether a forward pass of the backbone needs other processes, which have to call it as often."""
    return generates_in_step(backbone) and distributed.is_initialized() and distributed.get_world_size() > 1


def is_divided(value: Any) -> bool:
    """Whether a tensor is divided over processes (a ``DTensor``, whose class is not public in older torch)."""
    return hasattr(value, "full_tensor")


def whole(value: Any) -> Any:
    """A tensor on the CPU, gathered if it is divided (then every process must call this); other values as they are."""
    if hasattr(value, "ds_id"):  # a parameter under DeepSpeed's ZeRO
        import deepspeed

        with deepspeed.zero.GatheredParameters([value]):
            return value.detach().cpu().clone()
    if is_divided(value):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def full_parameters(module: nn.Module) -> dict[str, Tensor]:
    """What trains, by name, gathered on the CPU; under every strategy. Every process must call this at once.

    Args:
        module: The task, or any part of it.

    Returns:
        Tensors of the parameters' own shapes and dtypes.
    """
    return {name: whole(parameter) for name, parameter in trained(module).items()}


def divided_like(value: Any, parameter: Any) -> Any:
    """A whole tensor, divided as ``parameter`` is (every process must call this); other values as they are."""
    if not is_divided(parameter) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(parameter.device, parameter.dtype)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
