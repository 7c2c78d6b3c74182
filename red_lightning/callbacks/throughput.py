"""Report the training speed, the share of the hardware's peak, memory, and the time left."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from red_lightning.callbacks.peak_flops import peak_flops
from red_lightning.efficiency.flops import StepFlops, step_flops


class Unprofiled(PassThroughProfiler):
    """A profiler that measures nothing, as Lightning's default, without a generator for each hook of each callback.

    These are about 60 a step, and a fifth of the time that Lightning adds to a step.
    """

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


class Throughput(Callback):
    """A callback that logs tokens per second, the share of the hardware's peak, memory, and the time left.

    It logs every ``trainer.log_every_n_steps`` optimizer steps, and waits for the device only then:

    - ``tokens_per_second`` and ``rows_per_second`` of all processes, without padding and the time of validations.
    - ``peak_memory_gb``: 10^9 bytes of the process that needs most, allocated on a GPU, resident on a CPU.
    - ``minutes_left``: of the run, validations included.
    - ``mfu``, with a 16-bit dtype on a known GPU: the operations that training needs (:class:`StepFlops`, attention
      counted as causal) over the peak of all GPUs (:func:`peak_flops`).

    The progress bar shows them. Without a progress bar, they are printed as a line.

    Lightning's ThroughputMonitor does not fit: it waits for the GPU after each micro-batch, multiplies the counts of
    the first process by the number of processes, counts padding, and takes one number of operations for batches of
    any length.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.measured: dict[str, float] = {}
        """The metrics of the whole run for results.json, with ``tokens`` and ``rows``."""
        self._flops: StepFlops | None = None
        self._peak: float | None = None
        self._counts: list[list[Tensor | int]] = []
        self._totals = torch.zeros(4, dtype=torch.float64)
        self._seconds, self._memory, self._processes = 0.0, 0.0, 1
        self._begin = self._since = 0.0
        self._paused: float | None = None
        self._first_step = self._reported = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace Lightning's default profiler, which measures nothing."""
        if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
            trainer.profiler = Unprofiled()  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        backbone = getattr(pl_module, "backbone", None)
        self._flops = step_flops(backbone) if backbone is not None else None
        self._peak = peak_flops(pl_module.device, _computes_in(trainer, backbone))
        self._counts, self._totals, self._seconds, self._paused = [], torch.zeros(4, dtype=torch.float64), 0.0, None
        self._first_step = self._reported = trainer.global_step
        self._begin = self._since = self.clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock until the next training batch: saving after a validation does not count either."""
        self._paused = self.clock() if self._paused is None else self._paused

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Restart the clock after a validation."""
        if self._paused is not None:
            self._since += self.clock() - self._paused
            self._paused = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch, and log every ``log_every_n_steps`` steps."""
        if isinstance(batch, Mapping) and "input_ids" in batch:
            self._counts.append(_count(batch, self._peak is not None))
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0 and step != self._reported and self._counts:
            self._reported = step
            self._report(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the whole run."""
        if self._counts:
            self._measure(trainer)
        if self._seconds:
            self.measured = {**self._metrics(self._totals, self._seconds), "peak_memory_gb": self._memory}
            self.measured |= {"tokens": int(self._totals[0]), "rows": int(self._totals[1])}

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts, seconds = self._measure(trainer)
        metrics = {**self._metrics(counts, seconds), "peak_memory_gb": self._memory}
        steps, done = trainer.estimated_stepping_batches, trainer.global_step
        left = (self.clock() - self._begin) * (steps - done) / (done - self._first_step)
        metrics["minutes_left"] = left / 60
        bar = trainer.progress_bar_callback is not None
        for name, value in metrics.items():
            pl_module.log(name, value, prog_bar=bar and name != "rows_per_second", on_step=True, on_epoch=False)
        if not bar:
            share = f", {metrics['mfu']:.1%} of the peak" if "mfu" in metrics else ""
            _say(
                f"step {done:,} of {steps:,}: {metrics['tokens_per_second']:,.0f} tokens/s{share}, "
                f"{self._memory:.1f} GB at most, {timedelta(seconds=round(left))} left"
            )

    def _measure(self, trainer: Trainer) -> tuple[Tensor, float]:
        """Return the counts of all processes and the seconds since the last call; this waits for the device."""
        device = trainer.strategy.root_device
        mine = torch.stack([torch.as_tensor(sum(column), device=device) for column in zip(*self._counts, strict=True)])
        memory = torch.tensor(float(_peak_memory(device)), device=device)  # float64 is not for every device
        counts = trainer.strategy.reduce(mine, reduce_op="sum").cpu().double()
        self._memory = float(trainer.strategy.reduce(memory, reduce_op="max")) / 1e9
        now = self._paused if self._paused is not None else self.clock()
        seconds, self._since, self._counts = now - self._since, now, []
        self._totals, self._seconds = self._totals + counts, self._seconds + seconds
        self._processes = trainer.world_size
        return counts, seconds

    def _metrics(self, counts: Tensor, seconds: float) -> dict[str, float]:
        tokens, rows, labels, pairs = counts.tolist()
        metrics = {"tokens_per_second": tokens / seconds, "rows_per_second": rows / seconds}
        if self._flops is not None and self._peak is not None:
            metrics["mfu"] = self._flops.of(tokens, labels, pairs) / (seconds * self._peak * self._processes)
        return metrics


def _count(batch: Mapping[str, Any], operations: bool = True) -> list[Tensor | int]:
    """Count the tokens, rows, labels and causally attended pairs of a batch.

    Args:
        batch: The batch.
        operations: Whether to count labels and pairs, which are 0 otherwise.

    Returns:
        The four counts: int64 scalars on the batch's device, or numbers.
    """
    ids, labels = batch["input_ids"], batch.get("labels")
    rows = len(batch["row"]) if "row" in batch else len(ids)
    if "attention_mask" in batch:
        real = batch["attention_mask"]
    else:
        real = batch["sources"] > 0 if "sources" in batch else torch.ones_like(ids)  # shared sources may be padded
    tokens = real.sum()
    if not operations:
        return [tokens, rows, 0, 0]
    learned = (labels >= 0).sum() if labels is not None and labels.shape == ids.shape else 0
    if "position_ids" in batch and "attention_mask" not in batch:  # packed: positions restart with each example
        return [tokens, rows, learned, ((batch["position_ids"] + 1) * real).sum()]
    lengths = real.sum(1)
    return [tokens, rows, learned, (lengths * (lengths + 1)).sum() // 2]


def _computes_in(trainer: Trainer, backbone: Any) -> torch.dtype | None:
    """Return the dtype of the matrix products."""
    if "mixed" in str(trainer.precision):
        return torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float16
    return next((p.dtype for p in backbone.parameters() if p.is_floating_point()), None) if backbone else None


def _peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
