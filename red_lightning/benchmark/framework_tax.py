"""What Lightning costs: training steps through its Trainer with our task and callbacks, against a bare loop.

Both compute the same loss on the same batches of the same loader, with the same optimizer and schedule. All else that a
step of the Trainer does is the tax, also what a plain loop had better do: it sees whether the step is finite, seeds
dropout, weighs the loss by the labels of the whole optimizer step, and at log points writes the loss, the speed and the
memory to CSV. The Trainer has every callback of ``fit`` (alone it has neither them nor a logger); it does not validate,
and shows no progress bar. The model is so small that what a framework adds is not lost in the noise of its steps.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from red_lightning.benchmark.clocks import Measured
from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare
from red_lightning.benchmark.optimizer_steps import on
from red_lightning.benchmark.random_tasks import random_task, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import SHAPES
from red_lightning.callbacks import BestCheckpoint, FiniteSteps, PredictionWriter, Preemption, RunSummary, Throughput
from red_lightning.methods import RED
from red_lightning.quickstart import Restaurants
from red_lightning.tasks import DataToText
from red_lightning.tasks.optimization import build_optimizer, build_schedule

WARM_UP = 5
"""Steps of a run before the clock starts."""
STEPS = {"tiny": 10, "small": 200, "paper": 200}
"""Size -> steps that are measured."""
STEP_SECONDS = 0.020
"""The step for which the tax is stated as a ratio."""
BARE, OURS, ALONE = "bare loop", "Lightning, our callbacks", "Lightning alone"
ROWS = 4
OUR_CALLBACKS = (BestCheckpoint, FiniteSteps, PredictionWriter, Preemption, RunSummary, Throughput)


def measure(settings: Settings) -> Case:
    """Compare steps of a tiny random GPT-2 on the quickstart's data.

    Args:
        settings: How to measure.
    """
    steps = STEPS[settings.size]
    tokenizer, shape = tokenizer_of("quickstart"), SHAPES["tiny"]["gpt2"]
    tasks = [random_task(DataToText, RED(), shape, tokenizer, settings, metrics=["BLEU"]) for _ in range(3)]
    data = Restaurants(global_batch_size=ROWS, max_source_length=80, max_target_length=80, seed=settings.seed)
    data.connect(tokenizer, encoder_decoder=False)
    data.setup("fit")
    for task in tasks:
        task.configure_model()
    variants = [
        Variant(BARE, lambda: _bare(tasks[0], data, steps, settings.device), steps),
        Variant(OURS, lambda: _lightning(tasks[1], data, steps, settings.device, OUR_CALLBACKS), steps),
        Variant(ALONE, lambda: _lightning(tasks[2], data, steps, settings.device, []), steps),
    ]
    title = f"{shape.family}, {shape.layers} layers of {shape.width}, {ROWS} rows, {steps} steps"
    rows = compare(title, variants, settings, clock=lambda run: run())
    added = [ours - bare for bare, ours in zip(rows[0].amounts, rows[1].amounts, strict=True)]
    return Case(
        "Training steps through Lightning",
        [*rows, *_at_long_steps(added, settings)],
        notes=[f"Lightning and the callbacks add {median(added) * 1e3:.2f} ms to a step"],
    )


def _at_long_steps(added: list[float], settings: Settings) -> list[Row]:
    """What the added time would be of longer steps."""
    title = f"calculated: the same tax on steps of {STEP_SECONDS * 1e3:.0f} ms"
    long = [STEP_SECONDS + tax for tax in added]
    goal = Goal(cpu=1.02, cuda=1.02).on(settings)
    return [
        Row(title, BARE, "s/step", [STEP_SECONDS] * len(added), [1.0] * len(added)),
        Row(title, OURS, "s/step", long, [seconds / STEP_SECONDS for seconds in long], goal=goal),
    ]


def _now(device: str) -> tuple[float, float]:
    """The process's time (on a GPU, whose work it does not hold, the time that passes), and the time that passes."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter(), time.perf_counter()
    return time.process_time(), time.perf_counter()


class _Stopwatch(Callback):
    """Reads the clock when the first and when the last measured step begins."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device = steps, device
        self.times: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in (WARM_UP, WARM_UP + self.steps):
            self.times.append(_now(self.device))

    def measured(self) -> Measured:
        (process, wall), (process_end, wall_end) = self.times
        return Measured(process_end - process, wall_end - wall)


def _lightning(
    task: DataToText, data: Restaurants, steps: int, device: str, callbacks: Sequence[Callable[[], Callback]]
) -> Measured:
    stopwatch = _Stopwatch(steps, device)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=WARM_UP + steps + 1,
            limit_val_batches=0,
            logger=CSVLogger(folder) if callbacks else False,
            callbacks=[stopwatch, *(callback() for callback in callbacks)],
            enable_checkpointing=bool(callbacks),
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, datamodule=data)
    return stopwatch.measured()


def _bare(task: DataToText, data: Restaurants, steps: int, device: str) -> Measured:
    task.to(device).train()
    parameters = task.trainable_parameters()
    optimizer = build_optimizer(parameters, "AdamW", task.learning_rate, 0.0, 1e-8)
    schedule = build_schedule(optimizer, "linear", WARM_UP + steps + 1, 0, 0.0)
    times = []
    for step, batch in enumerate(data.train_dataloader()):
        if step in (WARM_UP, WARM_UP + steps):
            times.append(_now(device))
        if len(times) == 2:
            break
        loss, _ = task.loss(on(device, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    (process, wall), (process_end, wall_end) = times
    return Measured(process_end - process, wall_end - wall)
