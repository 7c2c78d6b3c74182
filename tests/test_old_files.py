"""Adapters, checkpoints, configs and imports of version 0.1.0 still work: ``fixtures/v0_1_0`` was made with it."""

import importlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from red_lightning.__main__ import main
from red_lightning.adapters.extensions import import_class
from red_lightning.errors import UsageError
from tests.cli.commands import environment, results, rows, run_apart
from tests.fixtures.old_files import outputs

pytestmark = pytest.mark.filterwarnings(r"ignore:red_lightning\.\S+ has moved to:FutureWarning")

FIXTURES = Path(__file__).parent / "fixtures/v0_1_0"
OUTPUTS = json.loads((FIXTURES / "outputs.json").read_text(encoding="utf-8"))
NAMES = json.loads((FIXTURES / "names.json").read_text(encoding="utf-8"))
CONFIGS = sorted(str(path.relative_to(FIXTURES)) for path in FIXTURES.rglob("*.yaml"))
RUNS = sorted(path.name for path in (FIXTURES / "experiments").iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy of the fixtures, whose paths are relative to it."""
    copy = Path(shutil.copytree(FIXTURES, tmp_path / "fixtures"))
    monkeypatch.chdir(copy)
    return copy


def run(*args: str) -> int:
    """Run a command line in this process."""
    with patch.dict(os.environ, environment(), clear=True):
        try:
            return main(list(args))
        except SystemExit as end:  # of --print_config
            return int(end.code or 0)


def class_paths(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The place and the value of each ``class_path`` in a config."""
    if isinstance(config, dict):
        if "class_path" in config:
            yield key, config["class_path"]
        for name, value in config.items():
            yield from class_paths(value, f"{key}.{name}".lstrip("."))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from class_paths(value, f"{key}.{index}")


def settings(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The place and the value of each setting in a config, but for the class paths."""
    parts = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    if not isinstance(config, (dict, list)):
        yield key, config
    for name, value in parts:
        if name != "class_path":
            yield from settings(value, f"{key}.{name}".lstrip("."))


@pytest.mark.parametrize("adapter", OUTPUTS)
def test_adapter_computes_what_it_did(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)
    found = torch.tensor(outputs(Path(adapter)))
    torch.testing.assert_close(found, torch.tensor(OUTPUTS[adapter]), rtol=1e-5, atol=1e-5)


def test_outputs_tell_adapters_apart() -> None:
    for size in {len(values) for values in OUTPUTS.values()}:
        stored = [values for values in OUTPUTS.values() if len(values) == size]
        for index, values in enumerate(stored):
            others = torch.tensor(stored[:index]).reshape(-1, size)
            assert ((others - torch.tensor(values)).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("name", RUNS)
def test_checkpoint_validates_as_it_did(name: str, folder: Path) -> None:
    old = folder / "experiments" / name
    checkpoint = str(old / "checkpoints/best.ckpt")
    status = run("validate", "--config", str(old / "config.yaml"), "--ckpt_path", checkpoint, "--run.name", "validated")
    assert status == 0
    selection = results(old)["selection"]
    scores = results(folder / "experiments/validated")["scores"]
    assert scores[selection["monitor"]] == pytest.approx(selection["score"], rel=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_unfinished_run_continues(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = folder / "experiments" / name
    steps, begun = results(old)["train"]["steps"], results(old)["selection"]
    (old / "results.json").unlink()
    config = str(old / "config.yaml")
    args = ("fit", "--config", config, "--run.name", name, "--ckpt_path", "last", "--trainer.max_epochs", "3")
    if name == "pairs":  # the others in this process, which is faster
        done = run_apart(folder, *args)
        assert done.returncode == 0, done.stderr
        shown = done.stdout
    else:
        assert run(*args) == 0
        shown = capsys.readouterr().out
    assert f"continuing from last.ckpt of {name}" in shown
    train, selection = results(old)["train"], results(old)["selection"]
    assert (train["epochs"], train["steps"]) == (3, 3 * steps // 2)  # begun with two epochs
    checkpoint = torch.load(old / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3 * steps // 2
    assert selection["mode"] == begun["mode"]
    better = min if selection["mode"] == "min" else max
    assert selection["score"] == better(selection["score"], begun["score"])


def test_changed_value_of_an_option_newer_than_the_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = folder / "experiments/pairs_with_replicas"
    assert "strict" not in (old / "config.yaml").read_text(encoding="utf-8")
    (old / "results.json").unlink()
    args = ("fit", "--config", str(old / "config.yaml"), "--run.name", old.name, "--ckpt_path", "last")
    assert run(*args, "--model.backbone_options.strict", "true") == 2
    said = capsys.readouterr().err
    assert "was begun with model.backbone_options.strict False, but it is now True" in said


def test_run_continues_under_another_path_of_its_class(folder: Path) -> None:
    old = folder / "experiments/pairs"
    (old / "results.json").unlink()
    config = (old / "config.yaml").read_text(encoding="utf-8")
    other = config.replace("red_lightning.tasks.DataToText", "red_lightning.tasks.data_to_text.DataToText")
    assert other != config
    (old / "config.yaml").write_text(other, encoding="utf-8")
    (folder / "now.yaml").write_text(config, encoding="utf-8")
    args = ("--run.name", "pairs", "--ckpt_path", "last", "--trainer.max_steps", "9")
    assert run("fit", "--config", "now.yaml", *args, "--trainer.max_epochs", "3") == 0
    assert results(old)["train"]["steps"] == 9


def test_test_of_a_checkpoint_gives_its_scores(folder: Path) -> None:
    old = folder / "experiments/texts"
    checkpoint = str(old / "checkpoints/best.ckpt")
    assert run("test", "--config", str(old / "config.yaml"), "--ckpt_path", checkpoint, "--run.name", "tested") == 0
    assert results(folder / "experiments/tested")["scores"] == pytest.approx(results(old)["scores"])
    before, now = (rows(path / "test_predictions.jsonl") for path in (old, folder / "experiments/tested"))
    assert [row["label"] for row in now] == [row["label"] for row in before]
    for old_row, row in zip(before, now, strict=True):
        assert row["scores"] == pytest.approx(old_row["scores"], abs=2e-6)  # six decimals are written


@pytest.mark.parametrize("file", CONFIGS)
def test_config_is_read(file: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", file, "--print_config") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
    classes = dict(class_paths(shown))
    for place, path in class_paths(given):
        assert resolved(classes[place]).__name__ == path.rpartition(".")[2]
        assert "." not in path or resolved(classes[place]) is resolved(path)
    values = dict(settings(shown))
    for place, value in settings(given):
        if place.endswith("method.init_args.replicas"):
            assert place not in values
        elif not str(value).startswith("${") and not str(value).endswith(".yaml"):
            assert values[place] == value, place


@pytest.mark.parametrize("path", NAMES["public"])
def test_public_name_is_still_there(path: str) -> None:
    module, _, name = path.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):  # it has moved
        import_class(path, object, "name", "this test", functions=True)


@pytest.mark.parametrize("path", NAMES["classes"])
def test_class_path_still_names_its_class(path: str) -> None:
    assert resolved(path).__name__ == path.rpartition(".")[2]


def resolved(path: str) -> type:
    """The class of an import path, found as the command line finds it, also if it is abstract."""
    try:
        return import_class(path, object, "class", "this test")
    except UsageError as error:
        if "that class does not define" not in str(error):
            raise
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)
