"""``parameters`` counts what trains without reading weights."""

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import write_experiment
from tests.cli.conftest import CLI

WIDTH, LAYERS = 32, 2


def test_counts_of_a_tiny_folder(cli: CLI, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = cli("parameters", "--config", "small.yaml")
    assert shown.status == 0, shown.err
    # embeddings of 300 tokens and 256 positions; per block two norms, and four linears with biases; the last norm
    block = 2 * 2 * WIDTH + (WIDTH * 96 + 96) + (WIDTH * WIDTH + WIDTH) + 2 * (WIDTH * 128) + 128 + WIDTH
    whole = (300 + 256) * WIDTH + LAYERS * block + 2 * WIDTH
    trains = 2 * LAYERS * WIDTH
    assert f"{trains / whole:.4%} of {whole:,}" in shown.out
    assert "4 tensors" in shown.out
    assert f" {trains} " in shown.out
    for layer in range(LAYERS):
        for vector in ("scaling", "bias"):
            assert f"transformer.h.{layer}.mlp.c_proj.{vector}" in shown.out
    assert shown.out.count(f" {WIDTH} ") >= 4
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "count"),
    [
        ("--model.method.vectors=bias", LAYERS * WIDTH),
        ("--model.method.layers=[1]", 2 * WIDTH),
        ("--model.method.sites=[ffn,attention]", 4 * LAYERS * WIDTH),
        ("--model.method.sites=[query,key,value]", 2 * LAYERS * 3 * WIDTH),
        ("--model.method=FullFineTuning", (300 + 256) * WIDTH + LAYERS * 12704 + 64),
    ],
)
def test_counts_follow_the_method(
    override: str, count: int, cli: CLI, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = cli("parameters", "--config", "small.yaml", override)
    assert shown.status == 0, shown.err
    assert f"{count:,}" in shown.out.splitlines()[-2]


def test_weights_are_not_needed(cli: CLI, tmp_path: Path, t5_folder: Path) -> None:
    folder = shutil.copytree(t5_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    write_experiment(tmp_path, folder)
    shown = cli("parameters", "--config", "small.yaml")
    assert shown.status == 0, shown.err
    assert "8 tensors" in shown.out  # two vectors in two layers of each stack
    assert "cannot be loaded" in cli("fit", "--config", "small.yaml").error


def test_data_files_are_not_needed(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "validation.jsonl").unlink()
    assert cli("parameters", "--config", "small.yaml").status == 0
