"""Load a sharded backbone: each process reads only its part of the files."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.backbones.sharding import refuse_sharding
from red_lightning.backbones.weight_files import Place, find_places
from red_lightning.compat.weight_initialization import can_compute_buffers, compute_buffers, keeps_some_in_float32


def load_sharded(
    load: Callable[..., nn.Module],
    source: Source,
    options: BackboneOptions,
    shard: Callable[[nn.Module], None],
    device: torch.device,
) -> nn.Module:
    """Load a backbone and divide it, so that all processes together hold its weights about once.

    Where the files are not safetensors, or their tensors do not fit the model name by name, each process loads the
    whole backbone before it is divided. So it does where transformers does not tell how buffers are computed.

    Args:
        load: Loads the backbone whole, or with ``meta=True`` builds it without weights.
        source: Where it is.
        options: How it is loaded.
        shard: Turns the backbone's parameters into tensors that are divided along their first dimension.
        device: Where this process' part goes.

    Returns:
        The divided backbone, in training mode. Its outputs are those of the whole one.

    Raises:
        UsageError: The backbone cannot be loaded, or is to be quantized or compiled.
    """
    refuse_sharding(options.quantization is not None, options.compile)
    backbone = load(meta=True)
    in_parts = _one_dtype(backbone, options) and can_compute_buffers(backbone)
    places = find_places(source, backbone) if in_parts else None
    if places is None:
        backbone = load()
        shard(backbone)
        return backbone
    shard(backbone)
    _allocate(backbone, device)
    _allocate_buffers(backbone)
    compute_buffers(backbone)
    _fill(backbone, places)
    return backbone.train()


def _one_dtype(backbone: Any, options: BackboneOptions) -> bool:
    """Whether every weight gets the dtype of the options; T5 keeps some in float32."""
    return options.number_format == "float32" or not keeps_some_in_float32(backbone)


def _allocate(backbone: nn.Module, device: torch.device) -> None:
    """Give each parameter, which is on the meta device, memory for this process' part; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                made[parameter] = nn.Parameter(torch.empty_like(parameter, device=device))
            setattr(module, name, made[parameter])


def _allocate_buffers(backbone: nn.Module) -> None:
    """Give each buffer memory on the CPU."""
    for module in backbone.modules():
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, torch.empty_like(buffer, device="cpu"))


@torch.no_grad()
def _fill(backbone: nn.Module, places: Mapping[str, Place]) -> None:
    """Read this process' part of each tensor. A file is open for one tensor only: what is mapped counts as memory."""
    for name, tensor in backbone.state_dict(keep_vars=True).items():
        path, key = places[name]
        with safe_open(path, "pt") as file:
            if isinstance(tensor, DTensor):
                local = tensor.to_local()
                start = -(-tensor.shape[0] // tensor.device_mesh.size()) * tensor.device_mesh.get_local_rank()
                local.copy_(file.get_slice(key)[start : start + len(local)])
            else:
                tensor.copy_(file.get_tensor(key))
