"""The files that a run leaves, in exact bytes: to resume from, and to share.

Each run takes one step on the quickstart's data with a random GPT-2, so that Adam's state is there.
"""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from red_lightning.adapters import save_edits
from red_lightning.benchmark.measure import Case, Goal, count
from red_lightning.benchmark.random_tasks import random_task, tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of
from red_lightning.callbacks import BestCheckpoint
from red_lightning.methods import RED, LoRA, Method
from red_lightning.quickstart import Restaurants
from red_lightning.tasks import DataToText

EVERYTHING, WEIGHTS = "Lightning's default checkpoint", "the whole model"
LEAST = "the vectors and Adam's two moments"


class _Everything(LightningModule):
    """A module without the package's care for checkpoints: Lightning saves all that it holds.

    Args:
        task: Whose backbone and loss it has.
    """

    def __init__(self, task: DataToText) -> None:
        super().__init__()
        self.backbone, self.task_loss = task.backbone, task.loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.task_loss(batch)[0]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad])


def measure(settings: Settings) -> Case:
    """Count the bytes of what RED and LoRA leave on a model shaped like GPT-2.

    Args:
        settings: Size and dtype.
    """
    shape, notes = shape_of("gpt2", settings), []
    with TemporaryDirectory() as place, redirect_stdout(StringIO()):
        folder = Path(place)
        task = _task(RED(), settings)
        resume: dict[str, float] = {EVERYTHING: _default_checkpoint(task, folder, settings)}
        share: dict[str, float] = {WEIGHTS: sum(p.nbytes for p in task.backbone.parameters() if not p.requires_grad)}
        numbers = sum(task.trainable_counts().values())
        for name, adapted in (("RED", task), ("LoRA, rank 8", _task(LoRA(), settings))):
            resume[f"{name}: last.ckpt"] = _checkpoint(adapted, folder / name, settings)
            share[f"{name}: edits/"] = _edits(adapted, folder / name / "edits")
        try:
            share["peft's LoRA, rank 8: save_pretrained"] = _peft(folder / "peft", settings)
        except ImportError:
            notes.append("peft is not installed, so that its LoRA is left out")
    least = 3 * 4 * numbers
    ours, goal = {LEAST: float(least), "RED: last.ckpt": resume["RED: last.ckpt"]}, 1.05 + 8192 / least
    where = f"{shape.family}, {shape.layers} layers of {shape.width}"
    rows = [
        *count(f"to resume from; {where}", resume, settings, gain=True),
        *count("to resume from, against the least", ours, settings, goals={"RED: last.ckpt": Goal(goal, goal)}),
        *count(f"to share; {where}", share, settings, gain=True),
    ]
    return Case("Files that a run leaves", rows, notes=notes)


def _task(method: Method, settings: Settings) -> DataToText:
    shape, tokenizer = shape_of("gpt2", settings), tokenizer_of("quickstart")
    task = random_task(DataToText, method, shape, tokenizer, settings, metrics=["BLEU"])
    task.configure_model()
    return task


def _fit(module: LightningModule, tokenizer: Any, settings: Settings, **options: Any) -> Trainer:
    """Take one step."""
    data = Restaurants(global_batch_size=2, max_source_length=80, max_target_length=80)
    data.connect(tokenizer, encoder_decoder=False)
    trainer = Trainer(
        accelerator="gpu" if settings.device == "cuda" else "cpu",
        devices=1,
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(module, datamodule=data)
    return trainer


def _default_checkpoint(task: DataToText, folder: Path, settings: Settings) -> int:
    file = folder / "everything.ckpt"
    _fit(_Everything(task), task.tokenizer, settings, enable_checkpointing=False).save_checkpoint(file)
    size = file.stat().st_size
    file.unlink()
    return size


def _checkpoint(task: DataToText, folder: Path, settings: Settings) -> int:
    _fit(task, task.tokenizer, settings, callbacks=[BestCheckpoint()], default_root_dir=folder)
    return (folder / "checkpoints/last.ckpt").stat().st_size


def _edits(task: DataToText, folder: Path) -> int:
    learned = {name.removeprefix("backbone."): tensor for name, tensor in task.trainable_parameters().items()}
    save_edits(folder, learned, {key: value for key, value in task.record().items() if key != "shapes"})
    return _size(folder)


def _peft(folder: Path, settings: Settings) -> int:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True)
    model: Any = get_peft_model(build("gpt2", settings), config)
    model.save_pretrained(folder)
    return _size(folder)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
