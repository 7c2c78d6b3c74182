"""Speeds against a clock that the test moves, and operations against those that Lightning measures."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.throughput import measure_flops
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoModelForCausalLM

from red_lightning import RED
from red_lightning.callbacks import Throughput
from red_lightning.callbacks.throughput import _count
from red_lightning.data import source_groups
from red_lightning.data.source_groups import collate_shared
from red_lightning.efficiency.flops import step_flops


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def batch(lengths: list[int], packed: bool) -> dict[str, Any]:
    """Rows of such lengths, padded or packed; the first token has no label."""
    if packed:
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        return {"input_ids": torch.ones_like(positions), "position_ids": positions, "row": list(range(len(lengths)))}
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return {"input_ids": torch.ones_like(mask), "attention_mask": mask, "row": list(range(len(lengths)))}


class Timed(LightningModule):
    """Needs 2 seconds for a micro-batch and 100 for a validation."""

    def __init__(self, clock: Clock, batches: list[dict[str, Any]]) -> None:
        super().__init__()
        self.clock, self.batches = clock, batches
        self.weight = nn.Parameter(torch.zeros(()))

    def train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(self.batches[:1], batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.clock.now += 2
        self.log("train_loss", self.weight.detach())
        return self.weight * 1

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.now += 100

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 2,
}


def fit(folder: Path, batches: list[dict[str, Any]], **options: Any) -> tuple[Throughput, list[dict[str, str]]]:
    clock = Clock()
    meter = Throughput(clock)
    settings = {**QUIET, "logger": CSVLogger(folder, name="", version="")}
    Trainer(**{**settings, **options}, default_root_dir=folder, callbacks=[meter]).fit(Timed(clock, batches))
    with (folder / "metrics.csv").open(newline="") as file:
        return meter, [row for row in csv.DictReader(file) if row.get("tokens_per_second")]


@pytest.mark.parametrize("packed", [False, True])
def test_speed_is_tokens_over_training_time(packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = [[5, 3], [2, 2], [1, 4], [6, 6], [9]]
    meter, logged = fit(tmp_path, [batch(rows, packed) for rows in lengths], val_check_interval=1)
    assert [float(row["tokens_per_second"]) for row in logged] == [12 / 4, 17 / 4]
    assert [float(row["rows_per_second"]) for row in logged] == [4 / 4, 4 / 4]
    assert all(row["train_loss"] for row in logged)  # one line with the other metrics
    measured = meter.measured
    assert (measured["tokens"], measured["rows"]) == (38, 9)
    assert measured["tokens_per_second"] == pytest.approx(38 / 10)  # the end is measured too
    lines = [line for line in capsys.readouterr().out.splitlines() if "tokens/s" in line]
    assert len(lines) == 2
    # 2 steps took 4 s and, between them, a validation of 100 s: 3 steps more take 1.5 times as long.
    assert lines[0].startswith("step 2 of 5: 3 tokens/s, ")
    assert lines[0].endswith("GB at most, 0:02:36 left")


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    batches = [batch([3, 1], False) for _ in range(8)]
    _, logged = fit(tmp_path, batches, accumulate_grad_batches=2, limit_val_batches=0)
    assert [float(row["tokens_per_second"]) for row in logged] == [16 / 8, 16 / 8]
    assert [int(row["step"]) for row in logged] == [1, 3]


def test_batches_without_text_are_not_measured(tmp_path: Path) -> None:
    meter, logged = fit(tmp_path, [{"pixels": torch.zeros(2)}] * 4)
    assert (meter.measured, logged) == ({}, [])


class Told(Throughput):
    """Writes what each process has in the end."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        Path(trainer.default_root_dir, f"{trainer.global_rank}.json").write_text(json.dumps(self.measured))


def test_processes_add_up(tmp_path: Path) -> None:
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=[Told(clock)],
    )
    trainer.fit(Timed(clock, [batch([3, 1], False) for _ in range(3)]))
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [(m["tokens"], m["tokens_per_second"]) for m in both] == [(24, 4.0), (24, 4.0)]
    assert both[0] == both[1]


@pytest.mark.parametrize("trained", ["RED", "everything", "nothing"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_operations_are_those_that_lightning_measures(
    family: str, trained: str, llama_folder: Path, gpt2_folder: Path
) -> None:
    """Lightning counts each multiplication of matrices; attention whole rather than causal, and all logits."""
    folder = {"llama": llama_folder, "gpt2": gpt2_folder}[family]
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").train()
    if trained != "everything":
        model.requires_grad_(False)
    if trained == "RED":
        RED(sites=["residual"]).apply(model)  # no gradient is cut short at the first layer but for its own weights
    ids = torch.randint(5, 90, (2, 16))
    # gradients reach the first layer from the start, as they do in all layers but the lowest of a deep model
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_(trained != "nothing")
    measured = measure_flops(
        model,
        lambda: model(inputs_embeds=embedded, use_cache=False).logits,
        Tensor.sum if trained != "nothing" else None,
    )
    flops = step_flops(model)
    assert flops is not None
    assert flops.of(tokens=32, labels=32, pairs=2 * 16 * 16) == pytest.approx(measured, rel=0.02)


def test_operations_of_a_classifier_are_those_that_lightning_measures() -> None:
    """Its head sees one token of each row."""
    from transformers import AutoModelForSequenceClassification, RobertaConfig

    config = RobertaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").train()
    embedded = torch.randn(2, 32, 64, requires_grad=True)
    measured = measure_flops(model, lambda: model(inputs_embeds=embedded).logits, Tensor.sum)
    flops = step_flops(model)
    assert flops is not None
    assert flops.of(tokens=64, labels=0, pairs=2 * 32 * 32) == pytest.approx(measured, rel=0.015)


def test_a_frozen_7b_step_by_hand() -> None:
    """Llama-2-7B, 2 rows of 768 tokens: 20.3 TFLOP forward in the weights and as many for the inputs' gradients."""
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    flops = step_flops(model)
    assert flops is not None
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000
    attention = 3 * 4 * 4096 * 32 * 2 * (768 * 769 // 2)
    assert flops.of(1536, 1536, 2 * (768 * 769 // 2)) == 4 * weights * 1536 + attention
    assert 4 * weights * 1536 == pytest.approx(2 * 20.3e12, rel=1e-3)


def test_an_encoder_decoder_has_no_share(t5_folder: Path) -> None:
    assert step_flops(AutoModel.from_pretrained(t5_folder)) is None


def test_a_shared_source_counts_once_and_padding_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_groups, "AS_COSTLY", 1)  # two rows, of 5 and 6 tokens
    rows = [
        {"row": 0, "source": [5, 6], "target": [7, 8]},
        {"row": 1, "source": [5, 6], "target": [9]},
        {"row": 2, "source": [4], "target": [3, 3, 3]},
        {"row": 3, "source": [2], "target": [3]},
    ]
    batch = collate_shared(rows, pad_id=1)
    assert batch["input_ids"].shape == (2, 6)
    tokens, count, labels, pairs = map(int, _count(batch))
    assert (tokens, count, labels) == (5 + 4 + 2, 4, 7)
    assert pairs == (1 + 2 + 3 + 4 + 3) + (1 + 2 + 3 + 4) + (1 + 2)
    assert list(map(int, _count(batch, operations=False))) == [tokens, count, 0, 0]


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_are_counted_without_operations_too(packed: bool) -> None:
    made = batch([4, 2, 3], packed)
    whole = list(map(int, _count(made)))
    assert whole == [9, 3, 0, 4 * 5 // 2 + 2 * 3 // 2 + 3 * 4 // 2]
    assert list(map(int, _count(made, operations=False))) == [9, 3, 0, 0]


def test_a_profiler_that_was_asked_for_stays(tmp_path: Path) -> None:
    batches = [batch([3, 1], False) for _ in range(3)]
    profiler = SimpleProfiler(dirpath=tmp_path, filename="times")
    fit(tmp_path, batches, profiler=profiler)
    assert len(profiler.recorded_durations["run_training_batch"]) == 3
    default: Any = Trainer(**QUIET, default_root_dir=tmp_path, callbacks=[Throughput()])
    default.fit(Timed(Clock(), batches))
    assert not isinstance(default.profiler, SimpleProfiler)
    with default.profiler.profile("anything"), default.profiler.profile("within it"):
        pass
