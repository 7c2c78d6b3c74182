"""The peaks of GPUs by the names that drivers give, without a GPU."""

import warnings

import pytest
import torch

from red_lightning.callbacks.peak_flops import OTHERWISE, _by_lightning, peak_flops

CUDA = torch.device("cuda")


def name_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


BFLOAT16 = {
    "NVIDIA H200": 989,
    "NVIDIA H200 NVL": 835,
    "NVIDIA GH200 480GB": 989,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H100 NVL": 835,
    "NVIDIA B200": 2250,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A40": 150,
    "NVIDIA L4": 121,
    "NVIDIA L40": 181,
    "NVIDIA L40S": 362,
    "NVIDIA A10G": 125,
    "NVIDIA RTX A6000": 155,
    "NVIDIA GeForce RTX 4090": 165,
    "NVIDIA GeForce RTX 3090": 71,
}
"""NVIDIA's data sheets: dense matrices, sums in float32."""


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("name", BFLOAT16)
def test_known_gpus(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name_it(monkeypatch, name)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    assert peak_flops(CUDA, torch.bfloat16) == pytest.approx(BFLOAT16[name] * 1e12, rel=0.005)


@pytest.mark.parametrize("name, peak", [("Tesla T4", 65), ("Tesla V100-SXM2-32GB", 125)])
def test_gpus_without_bfloat16(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    name_it(monkeypatch, name)
    assert peak_flops(CUDA, torch.float16) == peak * 1e12
    assert peak_flops(CUDA, torch.bfloat16) is None


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA Z9000",
        "NVIDIA RTX A4000",  # Lightning takes it for an A40
        "GeForce RTX 2060",  # the fourth word of a name is missing
        "NVIDIA GeForce RTX 3080",  # Lightning has its peak without tensor cores
        "AMD Instinct MI300X",
        "",
    ],
)
def test_unknown_gpus_are_no_error_and_no_warning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name_it(monkeypatch, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert peak_flops(CUDA, torch.bfloat16) is None


def test_other_devices_and_dtypes_have_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    name_it(monkeypatch, "NVIDIA H200")
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
    assert peak_flops(CUDA, torch.float32) is None
    assert peak_flops(CUDA, None) is None


@pytest.mark.parametrize("word", OTHERWISE)
def test_lightning_still_errs(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, Lightning has put the GPU right, and its line in OTHERWISE can go."""
    name_it(monkeypatch, f"NVIDIA {'GeForce ' if word in ('RTX 4090', 'RTX 3090') else ''}{word}")
    assert _by_lightning(CUDA, torch.bfloat16) != pytest.approx(OTHERWISE[word] * 1e12, rel=0.01)
