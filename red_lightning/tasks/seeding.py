"""Random numbers as functions of the run's seed, so that a resumed run, or another one with it, draws the same."""

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


def seed_batch(epoch: int, batch: int, process: int) -> None:
    """Make dropout a function of the seed, the batch and the process."""
    stream = random.Random(f"{os.environ.get(SEED, '0')}-{epoch}-{batch}-{process}")
    torch.manual_seed(stream.getrandbits(63))
