"""Two processes under each strategy learn what a single process learns, and read each other's checkpoints."""

import shutil
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from red_lightning.errors import UsageError
from red_lightning.strategies import DeepSpeed, deepspeed
from tests.strategies.conftest import Runs, Seen

needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None or shutil.which("g++") is None or shutil.which("ninja") is None,
    reason="needs deepspeed, g++ and ninja",
)

RIVALS: dict[str, dict[str, Any]] = {
    "LoRA": {"rank": 2},
    "AdaLoRA": {"target_rank": 2, "initial_rank": 3},
    "VeRA": {"rank": 4},
    "IA3": {},
    "Adapter": {"rank": 2},
    "AdapterFFN": {"rank": 2},
    "SSF": {},
    "BitFit": {"add_biases": True},
    "PrefixTuning": {"length": 3},
    "PromptTuning": {"length": 3},
    "LoReFT": {"rank": 2, "first": 2},
}
"""The methods beside RED that add to a frozen backbone, small."""

FULL: dict[str, Any] = {"method": "FullFineTuning", "options": {}, "learning_rate": 1e-3}


def assert_same(seen: Seen, other: Seen, tolerance: float = 1e-5) -> None:
    """The learned tensors and Adam's state are equal, and checkpoints hold nothing else."""
    names = set(other.learned)
    assert set(seen.learned) == set(seen.checkpoint["state_dict"]) == set(seen.adam) == names
    for name in names:
        close(seen.learned[name], other.learned[name], tolerance)
        close(seen.checkpoint["state_dict"][name], seen.learned[name], 0)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            close(seen.adam[name][key], other.adam[name][key], tolerance)
    assert seen.losses[-1] == pytest.approx(other.losses[-1], rel=max(tolerance, 1e-5))
    assert seen.bleu == other.bleu
    assert seen.predictions.items() <= other.predictions.items()  # those of the first process


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_fsdp2_is_a_single_process(runs: Runs, one: Seen) -> None:
    half = runs("half", epochs=2, strategy="fsdp2", devices=2)
    assert half.losses == pytest.approx(one.losses[:2], rel=1e-5)
    assert_same(runs("rest", epochs=4, resume=half.path), one)


@pytest.mark.slow
def test_each_strategy_goes_on_where_another_stopped(runs: Runs, one: Seen) -> None:
    path, seen = None, one
    for epochs, strategy, devices in ((1, "ddp", 2), (2, "fsdp2", 2), (3, "auto", 1), (4, "fsdp", 2)):
        seen = runs(f"chain{epochs}", epochs=epochs, strategy=strategy, devices=devices, resume=path)
        path = seen.path
    assert_same(seen, one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_clipping_and_accumulation(runs: Runs, strategy: str) -> None:
    options: dict[str, Any] = {"trainer": {"gradient_clip_val": 0.05}, "data": {"micro_batch_size": 1}}
    assert_same(runs(f"clipped_{strategy}", strategy=strategy, devices=2, **options), runs("clipped", **options))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp2"])
@pytest.mark.parametrize("option", ["packing", "share_sources"])
def test_packed_rows(runs: Runs, option: str, strategy: str) -> None:
    options: dict[str, Any] = {"data": {option: True}}
    seen = runs(f"{option}_{strategy}", strategy=strategy, devices=2, **options)
    assert_same(seen, runs(f"{option}_one", **options))


@pytest.mark.slow
@pytest.mark.parametrize("strategy, tolerance", [("fsdp", 0), ("fsdp2", 1e-3)])
def test_bfloat16_backbone_with_float32_vectors(runs: Runs, strategy: str, tolerance: float) -> None:
    ddp = runs("bf16_ddp", dtype="bfloat16", strategy="ddp", devices=2)
    seen = runs(f"bf16_{strategy}", dtype="bfloat16", strategy=strategy, devices=2)
    assert_same(seen, ddp, tolerance)  # FSDP2 divides the head, so that its gradient is rounded elsewhere
    assert {tensor.dtype for tensor in seen.learned.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp2"])
@pytest.mark.parametrize("method", RIVALS)
def test_rivals(runs: Runs, method: str, strategy: str) -> None:
    options: dict[str, Any] = {"method": method, "options": RIVALS[method], "epochs": 1}
    assert_same(runs(f"{method}_{strategy}", strategy=strategy, devices=2, **options), runs(method, **options))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_layers_around_divided_linears(runs: Runs, strategy: str) -> None:
    options: dict[str, Any] = {"method": "LoRA", "options": RIVALS["LoRA"]}
    half = runs(f"lora_half_{strategy}", epochs=1, strategy=strategy, devices=2, **options)
    rest = runs(f"lora_rest_{strategy}", strategy=strategy, devices=2, resume=half.path, **options)
    assert_same(rest, runs("lora", **options))


@pytest.mark.slow
def test_full_fine_tuning_under_fsdp2(runs: Runs) -> None:
    half = runs("full_half", **FULL, epochs=1, strategy="fsdp2", devices=2)
    seen = runs("full_rest", **FULL, strategy="fsdp2", devices=2, resume=half.path)
    assert_same(seen, runs("full", **FULL))


@pytest.mark.slow
def test_full_fine_tuning_under_fsdp_is_refused(runs: Runs) -> None:
    with pytest.raises(AssertionError, match=r"UsageError: the strategy FSDP divides frozen weights only"):
        runs("refused", **FULL, strategy="fsdp", devices=2)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed(runs: Runs, one: Seen, strategy: str) -> None:
    """On the CPU, with the shim of ``on_cpu.py``: it shows the arithmetic and the checkpoints, not what a GPU does."""
    first = runs("first", epochs=1)
    half = runs(f"{strategy}_half", epochs=2, strategy=strategy, devices=2, resume=first.path)
    rest = runs(f"{strategy}_rest", epochs=3, strategy=strategy, devices=2, resume=half.path)
    assert_same(runs(f"{strategy}_one", epochs=4, resume=rest.path), one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2", pytest.param("zero3", marks=needs_deepspeed)])
def test_an_evaluation_before_the_fit(runs: Runs, strategy: str) -> None:
    options: dict[str, Any] = {"dtype": "bfloat16", "strategy": strategy, "devices": 2}
    plain = runs(f"bf16_{strategy}", **options)
    assert_same(runs(f"baseline_{strategy}", baseline=True, **options), plain, tolerance=0)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
def test_deepspeed_without_a_gpu() -> None:
    with pytest.raises(UsageError, match=r"needs CUDA GPUs; give --trainer.strategy configs/trainer/fsdp2\.yaml"):
        Trainer(accelerator="cpu", strategy=DeepSpeed(2), logger=False).fit(BoringModel())


def test_deepspeed_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a package: pip install 'red-lightning\[deepspeed\]'"):
        DeepSpeed()
