"""A program for two processes: loads backbones in parts, compares them with whole ones, measures memory.

``load_in_parts.py equal FOLDER ...`` prints a line ``True`` for each folder whose outputs and fingerprint are equal;
``load_in_parts.py memory FOLDER`` prints the peak of both processes' memory in shares of the weights.
"""

import os
import sys
import threading
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.backbones.sharded_loading import load_sharded
from red_lightning.backbones.sharding import blocks

CPU = torch.device("cpu")


def shard(backbone: nn.Module) -> None:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for module in [*blocks(backbone), backbone]:
        fully_shard(module, mesh=mesh)


def load(folder: str, options: BackboneOptions) -> nn.Module:
    source, calls = find(folder, options), []

    def whole_or_meta(meta: bool = False) -> nn.Module:
        calls.append(meta)
        return load_generator(source, options, meta)

    backbone = load_sharded(whole_or_meta, source, options, shard, CPU)
    assert calls == [True], "it was loaded whole"
    return backbone


@torch.no_grad()
def equal(folder: str, options: BackboneOptions) -> bool:
    whole = load_generator(find(folder, options), options).eval()
    parts = load(folder, options).eval()
    tokens = torch.arange(2, 26).view(2, 12)
    buffers = dict(parts.named_buffers())
    return (
        torch.equal(parts(input_ids=tokens).logits, whole(input_ids=tokens).logits)
        and all(torch.equal(buffers.pop(name), buffer) for name, buffer in whole.named_buffers())
        and not buffers
        and fingerprint(parts) == fingerprint(whole)
    )


def memory(processes: list[int]) -> int:
    """Bytes of memory of some processes; a page that they share counts once."""
    files = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return 1024 * sum(int(line.split()[1]) for file in files for line in file.splitlines() if line.startswith("Pss:"))


def peak(folder: str, options: BackboneOptions) -> float:
    processes = [0] * distributed.get_world_size()
    distributed.all_gather_object(processes, os.getpid())
    done, seen = threading.Event(), [memory(processes)]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(memory(processes))

    watcher = threading.Thread(target=watch)
    distributed.barrier()
    watcher.start()
    backbone = load(folder, options)
    distributed.barrier()
    done.set()
    watcher.join()
    return (max(seen) - seen[0]) / sum(p.numel() * p.element_size() for p in backbone.parameters())


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    for argument in sys.argv[2:]:
        path, _, dtype = argument.partition(":")
        options = BackboneOptions(dtype=dtype or "float32")  # type: ignore[arg-type]
        seen = equal(path, options) if sys.argv[1] == "equal" else peak(path, options)
        if distributed.get_rank() == 0:
            print(seen, flush=True)
