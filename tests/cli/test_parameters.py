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


@pytest.mark.parametrize("spelling", ["model.method", "model.init_args.method"])
@pytest.mark.parametrize("key", ["", ".class_path"])
@pytest.mark.parametrize("between", [" ", "="])
def test_a_named_method_has_its_own_defaults(
    spelling: str, key: str, between: str, cli: CLI, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = cli("parameters", "--config", "small.yaml", *f"--{spelling}{key}{between}IA3".split())
    assert "IA3 (sites: ['key', 'value', 'ffn'], layers: None)" in shown.out, shown.err


def test_a_second_config_can_name_a_method(
    cli: CLI, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for name, method in {"other": "class_path: LoRA", "more": "init_args: {rank: 3}"}.items():
        text = f"model:\n  init_args:\n    method: {{{method}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    shown = cli("parameters", *(f"--config={name}.yaml" for name in ("small", "other", "more")))
    assert "LoRA (sites: ['query', 'value'], rank: 3, alpha: 8" in shown.out, shown.err


@pytest.mark.parametrize("spelling", ["model.method.layers", "model.init_args.method.init_args.layers"])
def test_a_nested_option_can_be_null(
    spelling: str, cli: CLI, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = cli("parameters", "--config", "small.yaml", "--model.method.layers=[1]", f"--{spelling}", "null")
    assert "RED (sites: ['ffn'], vectors: both, layers: None)" in shown.out, shown.err
