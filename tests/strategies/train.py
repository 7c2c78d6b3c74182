"""A program that trains under a strategy, as several processes do that Lightning starts: ``train.py '{...}'``."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

import red_lightning.methods
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.sharding import full_parameters
from tests.strategies.on_cpu import STRATEGIES
from tests.training import make_data, make_task, make_trainer


class Losses(Callback):
    """Collects the validation losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values.append(float(trainer.callback_metrics["val_loss"]))


def train(
    backbone: str,
    out: str,
    strategy: str = "auto",
    devices: int = 1,
    epochs: int = 2,
    resume: str | None = None,
    method: str = "RED",
    options: dict[str, Any] = {"sites": ["ffn", "residual"]},  # noqa: B006 - never changed
    learning_rate: float = 1e-2,
    dtype: str = "float32",
    baseline: bool = False,
    data: dict[str, Any] = {},  # noqa: B006 - never changed
    trainer: dict[str, Any] = {},  # noqa: B006 - never changed
) -> None:
    """Fit, save, test, and write what was seen as ``out`` with the endings ckpt, pt and json."""
    folder, losses = Path(out).parent, Losses()
    task = make_task(
        Path(backbone),
        method=getattr(red_lightning.methods, method)(**options),
        learning_rate=learning_rate,
        schedule="constant",
        backbone_options=BackboneOptions(dtype=dtype),  # type: ignore[arg-type]
    )
    rows = make_data(folder, global_batch_size=4, seed=7, **data)
    settings = {"strategy": STRATEGIES[strategy](), "devices": devices, "max_epochs": epochs, **trainer}
    runner = make_trainer(folder, **{"callbacks": [losses], "enable_checkpointing": False, **settings})
    if baseline:  # an evaluation before the fit, as --run.baseline asks for
        runner.test(task, datamodule=rows, verbose=False)
    runner.fit(task, datamodule=rows, ckpt_path=resume)
    runner.save_checkpoint(f"{out}.ckpt")
    learned = full_parameters(task)
    runner.test(task, datamodule=rows, ckpt_path=f"{out}.ckpt", verbose=False)
    bleu = float(runner.callback_metrics["test_BLEU"])
    predictions = {row["row"]: row["prediction"] for batch in runner.predict(task, rows) or [] for row in batch}
    loops = (runner.fit_loop.epoch_loop.val_loop, runner.test_loop, runner.predict_loop)
    assert devices == 1 or strategy == "ddp" or not any(loop.inference_mode for loop in loops)
    if runner.is_global_zero:
        torch.save(learned, f"{out}.pt")
        seen = {"losses": losses.values, "bleu": bleu, "predictions": predictions}
        Path(f"{out}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
