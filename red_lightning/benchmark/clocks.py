"""Clocks: what a run takes on a CPU and on a GPU."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Measured(NamedTuple):
    """One run: seconds of the process (or device), seconds that passed, and the most memory besides what was there."""

    seconds: float
    wall: float
    peak_bytes: int | None = None


Clock = Callable[[Callable[[], Any]], Measured]
"""Runs something and measures it."""


def on_cpu(run: Callable[[], Any]) -> Measured:
    """Run, and measure the process's own time, which other work on the machine does not lengthen."""
    wall, process = time.perf_counter(), time.process_time()
    run()
    return Measured(time.process_time() - process, time.perf_counter() - wall)


def on_cuda(run: Callable[[], Any]) -> Measured:
    """Run, and measure the time between two events of the device, and the memory that the run took."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    wall = time.perf_counter()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    wall = time.perf_counter() - wall
    return Measured(start.elapsed_time(end) / 1000, wall, torch.cuda.max_memory_allocated() - before)
