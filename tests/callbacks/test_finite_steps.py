"""Steps that are no numbers are skipped as a plain loop would skip them, and too many end the run."""

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from red_lightning.callbacks import BestCheckpoint, FiniteSteps, read_checkpoint
from red_lightning.errors import UsageError, usage_error_in

Batch = dict[str, Any]


def batches(count: int, bad: dict[int, str], rows: bool = True) -> list[Batch]:
    """Batches of two rows of width 3; some are bad in one of four ways."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        batch: Batch = {"x": torch.randn(2, 3, generator=generator), "bad": bad.get(number, "")}
        made.append({**batch, "row": [2 * number, 2 * number + 1]} if rows else batch)
    return made


class BadGradient(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * math.inf


def loss_of(scaling: Tensor, batch: Batch) -> Tensor:
    loss = ((batch["x"] * scaling).sum(1) - 1).square().mean()
    changes = {
        "": lambda: loss,
        "NaN loss": lambda: loss * math.nan,
        "infinite loss": lambda: loss + math.inf,  # its gradient is finite
        "infinite gradient": lambda: BadGradient.apply(loss),
        "large gradient": lambda: loss * 1e30,  # finite, but its square is not
    }
    return changes[batch["bad"]]()


class Module(LightningModule):
    """Learns three scalings."""

    def __init__(self, made: list[Batch], other: list[Batch] | None = None) -> None:
        super().__init__()
        self.made, self.other = made, other
        self.scaling = nn.Parameter(torch.ones(3))
        self.untrained = nn.Parameter(torch.ones(2), requires_grad=False)

    def train_dataloader(self) -> Any:
        mine = self.made if self.other is None or self.global_rank == 0 else self.other
        return DataLoader(mine, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return loss_of(self.scaling, batch)

    def configure_optimizers(self) -> Any:
        return optimizer_and_schedule([self.scaling])


def optimizer_and_schedule(parameters: list[nn.Parameter]) -> Any:
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(module: LightningModule, folder: Path, *callbacks: Any, **options: Any) -> tuple[Trainer, FiniteSteps]:
    finite = FiniteSteps()
    settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": bool(callbacks)}
    trainer = Trainer(
        **{**settings, **quiet, **options}, default_root_dir=folder, callbacks=[finite, *callbacks], barebones=False
    )
    trainer.fit(module)
    return trainer, finite


def plain_loop(made: list[Batch], accumulate: int) -> tuple[Tensor, dict[str, Any], float]:
    """What a loop learns that leaves out the update of a bad step; Adam's state, and the last learning rate."""
    scaling = nn.Parameter(torch.ones(3))
    built = optimizer_and_schedule([scaling])
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    for start in range(0, len(made), accumulate):
        parts = made[start : start + accumulate]
        optimizer.zero_grad()
        if all(part["bad"] in ("", "large gradient") for part in parts):
            for part in parts:
                (loss_of(scaling, part) / accumulate).backward()
            optimizer.step()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # a first update may be left out
            schedule.step()
    return scaling.detach(), optimizer.state[scaling], schedule.get_last_lr()[0]


BAD = {3: "NaN loss", 4: "infinite loss", 7: "infinite gradient", 10: "large gradient"}


@pytest.mark.parametrize(("accumulate", "skipped"), [(1, 3), (2, 3), (4, 2)])
def test_a_bad_step_is_left_out(accumulate: int, skipped: int, tmp_path: Path) -> None:
    made = batches(16, BAD)
    trainer, finite = fit(module := Module(made), tmp_path, accumulate_grad_batches=accumulate)
    learned, state, rate = plain_loop(made, accumulate)
    assert torch.equal(module.scaling.detach(), learned)
    mine = trainer.optimizers[0].state[module.scaling]
    assert all(torch.equal(mine[name], state[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    assert trainer.optimizers[0].param_groups[0]["lr"] == rate
    assert trainer.global_step == 16 // accumulate  # a skipped step counts
    assert finite.skipped_steps == skipped


def test_clipping_does_not_hide_a_bad_step(tmp_path: Path) -> None:
    module = Module(batches(4, {0: "infinite gradient", 1: "NaN loss"}))
    _, finite = fit(module, tmp_path, gradient_clip_val=1.0)
    assert finite.skipped_steps == 2
    assert module.scaling.isfinite().all()


def error_of(module: LightningModule, folder: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        fit(module, folder, BestCheckpoint(every_n_steps=1), **options)
    return str(caught.value)


def test_too_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    runs = dict.fromkeys(range(2, 6), "NaN loss")
    module = Module(made := batches(9, {0: "infinite loss", **runs}))
    error = error_of(module, tmp_path)
    assert (
        "of 4 optimizer steps in a row were no numbers, the last at step 6 (training rows 10, 11, counted from 0)"
        in error
    )
    assert f"the last good checkpoint is '{tmp_path / 'checkpoints/last.ckpt'}'" in error
    kept = read_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert kept["global_step"] == 5
    learned, *_ = plain_loop(made[:5], 1)
    assert torch.equal(kept["state_dict"]["scaling"], learned)
    assert torch.equal(module.scaling.detach(), learned)


def test_the_bad_micro_batch_is_named(tmp_path: Path) -> None:
    bad = dict.fromkeys(range(1, 16, 4), "NaN loss")
    assert "(training rows 26, 27, counted from 0)" in error_of(
        Module(batches(16, bad)), tmp_path, accumulate_grad_batches=4
    )
    bad = dict.fromkeys(range(1, 16, 4), "infinite gradient")  # no loss tells which micro-batch it was
    error = error_of(Module(batches(16, bad)), tmp_path, accumulate_grad_batches=4)
    assert "(training rows 24, 25, 26, 27, 28, 29, 30, 31, counted from 0)" in error
    assert "the last at step 4, so" in error_of(
        Module(batches(4, dict.fromkeys(range(4), "NaN loss"), rows=False)), tmp_path
    )


def test_counts_are_resumed_and_logged(tmp_path: Path) -> None:
    bad = dict.fromkeys([0, 2, 3, 4, 5], "NaN loss")
    checkpoint = BestCheckpoint(every_n_steps=1)
    logger = CSVLogger(tmp_path, name="", version="")
    _, finite = fit(Module(batches(9, bad)[:4]), tmp_path, checkpoint, logger=logger)
    assert finite.skipped_steps == 3
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [(row["step"], row["skipped_steps"]) for row in csv.DictReader(file)] == [
            ("1", "1"),
            ("3", "2"),
            ("4", "3"),
        ]
    again = FiniteSteps()
    again.load_state_dict(read_checkpoint(checkpoint.last_path)["callbacks"]["FiniteSteps"])
    assert again.state_dict() == {"skipped_steps": 3, "in_a_row": 2}


def test_a_gradient_scaler_is_not_disturbed(tmp_path: Path) -> None:
    plugin = MixedPrecision("16-mixed", "cpu")
    assert plugin.scaler is not None
    bad = {**dict.fromkeys(range(1, 6), "infinite gradient"), 7: "NaN loss", 8: "infinite loss"}
    module = Module(batches(10, bad))
    _, finite = fit(module, tmp_path, plugins=[plugin])
    assert finite.skipped_steps == 2  # the losses only: the scaler skips the five others itself
    assert plugin.scaler.get_scale() == 65536 / 2**6  # it has seen the NaN loss too
    assert module.scaling.isfinite().all()


class Witness(FiniteSteps):
    """Tells in a file what a process has in the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        content = {"scaling": pl_module.scaling.tolist(), "skipped": self.skipped_steps}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(content))


def test_processes_agree(tmp_path: Path) -> None:
    """A loss that is infinite on one process only, with finite gradients, is skipped on both."""
    one, two = batches(6, {2: "infinite loss"}), batches(6, {4: "NaN loss"})
    two = [{**batch, "row": [100 + row for row in batch["row"]]} for batch in two]
    options: dict[str, Any] = {
        "devices": 2,
        "strategy": "ddp_fork",
        "use_distributed_sampler": False,
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    Trainer(callbacks=[Witness(tmp_path)], **options).fit(Module(one, two))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["skipped"] == 2
    assert all(map(math.isfinite, ranks[0]["scaling"]))
    two = [{**batch, "bad": "NaN loss"} for batch in two]
    with pytest.raises(Exception, match="training rows 106, 107") as caught:
        Trainer(callbacks=[FiniteSteps()], **options).fit(Module(batches(6, {}), two))
    assert usage_error_in(caught.value) or "no numbers" in str(caught.value)


def test_no_step_may_be_bad(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"finite_steps.most_in_a_row is -1"):
        FiniteSteps(most_in_a_row=-1)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[FiniteSteps(most_in_a_row=0)],
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"of 1 optimizer step were? was|of 1 optimizer step was no"):
        trainer.fit(Module(batches(2, {0: "NaN loss"})))
