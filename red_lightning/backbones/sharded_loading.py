"""Load a backbone whose weights are divided over processes: each reads its own part of the files, and nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from red_lightning.backbones.compiling import refuse_compiled
from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.backbones.quantization import refuse_division
from red_lightning.backbones.weight_files import Place, find_places


def load_sharded(
    load: Callable[..., nn.Module],
    source: Source,
    options: BackboneOptions,
    shard: Callable[[nn.Module], None],
    device: torch.device,
) -> nn.Module:
    """Load a backbone and divide it, so that all processes together hold its weights about once.

    Where the files are not safetensors, or their tensors do not fit the model name by name, each process loads the
    whole backbone before it is divided.

    Args:
        load: Loads the backbone whole, or with ``meta=True`` builds it without weights.
        source: Where it is.
        options: How it is loaded.
        shard: Turns the backbone's parameters into tensors that are divided along their first dimension.
        device: Where this process' part goes.

    Returns:
        The divided backbone, in training mode. Its outputs are those of the whole one.

    Raises:
        UsageError: The backbone cannot be loaded, or is to be quantised or compiled.
    """
    refuse_division(options.quantization is not None)
    refuse_compiled(options.compile)
    backbone = load(meta=True)
    places = find_places(source, backbone) if _one_dtype(backbone, options) else None
    if places is None:
        backbone = load()
        shard(backbone)
        return backbone
    shard(backbone)
    _allocate(backbone, device)
    _compute_buffers(backbone)
    _fill(backbone, places)
    return backbone.train()


def _one_dtype(backbone: Any, options: BackboneOptions) -> bool:
    """Whether every weight gets the dtype of the options; T5 keeps some in float32."""
    kept = backbone._keep_in_fp32_modules or getattr(backbone, "_keep_in_fp32_modules_strict", None)
    return options.number_format == "float32" or not kept


def _allocate(backbone: nn.Module, device: torch.device) -> None:
    """Give each parameter, which is on the meta device, memory for this process' part; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                made[parameter] = nn.Parameter(torch.empty_like(parameter, device=device))
            setattr(module, name, made[parameter])


def _compute_buffers(backbone: Any) -> None:
    """Fill the buffers, such as rotary frequencies; no file holds most of them, and ``_init_weights`` computes them."""
    for tensor in backbone.parameters():
        tensor._is_hf_initialized = True  # so that it is left as it is
    for module in backbone.modules():
        buffers = dict(module.named_buffers(recurse=False))
        for name, buffer in buffers.items():
            module._buffers[name] = torch.empty_like(buffer, device="cpu")
        if buffers:
            backbone._init_weights(module)


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
