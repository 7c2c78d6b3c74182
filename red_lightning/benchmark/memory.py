"""Count memory exactly: the bytes that autograd keeps, and the peak of a run."""

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from red_lightning.compat.new_tensors import tensors_in, watch_tensors


def saved_bytes(forward: Callable[[], Any], model: nn.Module) -> int:
    """Count the bytes that a forward pass keeps for its backward pass.

    Args:
        forward: Computes the loss. The loss does not count.
        model: Its parameters and buffers do not count.

    Returns:
        The size of the distinct storages that the forward pass made and that still exist afterwards.
    """
    with new_storages() as made:
        loss = forward()
    given = _storages((*model.parameters(), *model.buffers(), *tensors_in(loss)))
    return sum(size for storage, size in made.items() if not storage.expired() and storage not in given)


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """Return the peak bytes of the tensors that a run makes. Tensors from before the run do not count.

    Args:
        run: The function to measure. On a CPU it runs under the profiler, so do not time it as well.
        device: ``cpu`` or ``cuda``.
    """
    gc.collect()  # else leftovers of earlier runs could be freed during this one
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    options: dict[str, Any] = {"activities": [torch.profiler.ProfilerActivity.CPU], "profile_memory": True}
    with without_lines("USDT:"), torch.profiler.profile(**options) as profile:  # it prints when it starts and stops
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            held += event.nbytes()
            most = max(most, held)
    return most


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the distinct storages of tensors. A torchao tensor counts with all its parts."""
    return sum(_storages(part for tensor in tensors for part in _parts(tensor)).values())


def _storages(tensors: Iterable[Tensor]) -> dict[StorageWeakRef, int]:
    """Return the distinct storages of tensors with their bytes, and keep none of them alive."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {StorageWeakRef(storage): storage.nbytes() for storage in storages}


def _parts(tensor: Any) -> list[Tensor]:
    """Return the standard tensors that a tensor subclass consists of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(tensor, name))]


@contextmanager
def new_storages() -> Iterator[dict[StorageWeakRef, int]]:
    """Record the storages of all tensors made inside, with their bytes, and keep none of them alive."""
    storages: dict[StorageWeakRef, int] = {}
    with watch_tensors(lambda tensor: storages.update(_storages([tensor]))):
        yield storages


@contextmanager
def without_lines(beginning: str) -> Iterator[None]:
    """Drop lines from the standard error of the process, C++ code included. Other lines appear at the end.

    Args:
        beginning: First characters of the lines to drop.
    """
    sys.stderr.flush()
    with TemporaryFile() as written:
        shown = os.dup(2)
        try:
            os.dup2(written.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            written.seek(0)
            for line in written:
                if not line.startswith(beginning.encode()):
                    os.write(2, line)
