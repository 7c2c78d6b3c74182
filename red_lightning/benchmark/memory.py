"""How much memory a run takes, exactly: what autograd keeps, and the most that is held at once."""

import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from red_lightning.benchmark.quiet import without_lines


def saved_bytes(forward: Callable[[], Any], model: nn.Module) -> int:
    """The bytes that a forward pass keeps for its backward pass, however it keeps them.

    Args:
        forward: Computes the loss, which does not count.
        model: Whose parameters and buffers do not count.

    Returns:
        The size of the distinct storages that were made by the forward pass and are still there after it.
    """
    with NewStorages() as made:
        loss = forward()
    given = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers(), *tree_leaves(loss))}
    there = {key: size for key, (storage, size) in made.storages.items() if not storage.expired()}
    return sum(size for key, size in there.items() if key not in given)


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """The most bytes of tensors that a run holds at once, besides those that are there before it.

    Args:
        run: What is measured. On a CPU it is profiled: do not time it besides.
        device: ``cpu`` or ``cuda``.
    """
    gc.collect()  # else what earlier runs left might be freed in the midst of this one
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    options: dict[str, Any] = {"activities": activities, "profile_memory": True}
    with without_lines("USDT:"), torch.profiler.profile(**options) as profile:  # it says when it starts and stops
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            held += event.nbytes()
            most = max(most, held)
    return most


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """The bytes of the distinct storages of some tensors; those of torchao, which have several parts, with each."""
    storages = {part.untyped_storage()._cdata: part.untyped_storage() for tensor in tensors for part in _parts(tensor)}
    return sum(storage.nbytes() for storage in storages.values())


def _parts(tensor: Any) -> list[Tensor]:
    """The plain tensors of which a tensor is made."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(tensor, name))]


class NewStorages(TorchDispatchMode):
    """Notes the storages of the tensors that are made, and keeps none of them alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return output
