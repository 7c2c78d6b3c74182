"""Random numbers as functions of the run's seed, so that resumed runs draw the same."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEED = "PL_GLOBAL_SEED"
"""The environment variable in which ``seed_everything`` leaves the seed."""


@contextmanager
def first_values() -> Iterator[None]:
    """Let the first values of what trains depend on the run's seed, and on nothing that was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(os.environ.get(SEED, "0")))
        yield


def seed_batch(epoch: int, batch: int, process: int, device: torch.device) -> None:
    """Make dropout on a device a function of the seed, the batch and the process.

    ``torch.manual_seed`` would do the same, but takes longer than all else that a step does besides its tensors: it
    notes a stack trace for each kind of device that is not in use.
    """
    seed = random.Random(f"{os.environ.get(SEED, '0')}-{epoch}-{batch}-{process}").getrandbits(63)
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
