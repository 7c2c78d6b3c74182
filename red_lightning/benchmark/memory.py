"""How much memory a run takes, exactly: what autograd keeps, and the most that is held at once."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from red_lightning.benchmark.quiet import without_lines
from red_lightning.compat.new_tensors import tensors_in, watch_tensors


def saved_bytes(forward: Callable[[], Any], model: nn.Module) -> int:
    """The bytes that a forward pass keeps for its backward pass, however it keeps them.

    Args:
        forward: Computes the loss, which does not count.
        model: Whose parameters and buffers do not count.

    Returns:
        The size of the distinct storages that were made by the forward pass and are still there after it.
    """
    with new_storages() as made:
        loss = forward()
    given = _storages((*model.parameters(), *model.buffers(), *tensors_in(loss)))
    return sum(size for storage, size in made.items() if not storage.expired() and storage not in given)


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
    return sum(_storages(part for tensor in tensors for part in _parts(tensor)).values())


def _storages(tensors: Iterable[Tensor]) -> dict[StorageWeakRef, int]:
    """The distinct storages of some tensors, none of which is kept alive, with their bytes."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {StorageWeakRef(storage): storage.nbytes() for storage in storages}


def _parts(tensor: Any) -> list[Tensor]:
    """The plain tensors of which a tensor is made."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(tensor, name))]


@contextmanager
def new_storages() -> Iterator[dict[StorageWeakRef, int]]:
    """Note the storages of the tensors that are made within, with their bytes, and keep none of them alive."""
    storages: dict[StorageWeakRef, int] = {}
    with watch_tensors(lambda tensor: storages.update(_storages([tensor]))):
        yield storages
