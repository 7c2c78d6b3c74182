"""Load a backbone whose weights are divided over processes: each reads its own part of the files, and nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from red_lightning import hub
from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.backbones.quantization import refuse_division

_IN_FILES = {"lm_head.weight": "embed_out.weight"}
"""Names in published files that transformers changed since (GPT-NeoX)."""

Place = tuple[Path, str]
"""A file and the name of a tensor in it."""


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
        UsageError: The backbone cannot be loaded, or is to be quantised.
    """
    refuse_division(options.quantization is not None)
    backbone = load(meta=True)
    places = _places(source, backbone) if _one_dtype(backbone, options) else None
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
    return options.dtype == "float32" or not kept


def _places(source: Source, backbone: Any) -> dict[str, Place] | None:
    """Where each tensor of the backbone lies, by its name in it; None if one has no place or another shape there."""
    try:
        files = _files(source)
        shapes = {key: _shape(place) for key, place in files.items()}
    except (SafetensorError, OSError, ValueError, KeyError):
        return None  # loading it whole says what is wrong
    prefix = backbone.base_model_prefix + "."
    places: dict[Tensor, Place] = {}
    tensors = backbone.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        for key in (name, prefix + name, name.removeprefix(prefix), _IN_FILES.get(name)):
            if key is not None and shapes.get(key) == list(tensor.shape):
                places.setdefault(tensor, files[key])
                break
    if not all(tensor in places for tensor in tensors.values()):  # tied ones have one place
        return None
    return {name: places[tensor] for name, tensor in tensors.items()}


def _files(source: Source) -> dict[str, Place]:
    """Where each tensor lies, by its name in the files."""
    if index := _file(source, "model.safetensors.index.json"):
        names: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = {name: _file(source, name) for name in sorted(set(names.values()))}
        return {key: (path, key) for key, name in names.items() if (path := paths[name]) is not None}
    single = _file(source, "model.safetensors")
    if single is None:
        return {}
    with safe_open(single, "pt") as file:
        return {key: (single, key) for key in file.keys()}  # noqa: SIM118 - no mapping


def _file(source: Source, name: str) -> Path | None:
    folder = hub.local_folder(source.name)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(source.name, name, revision=source.commit, local_files_only=source.local_only))
    except EntryNotFoundError:
        return None


def _shape(place: Place) -> list[int]:
    path, key = place
    with safe_open(path, "pt") as file:
        return list(file.get_slice(key).get_shape())


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
