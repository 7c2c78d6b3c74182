"""The command, in a process of its own and in this one."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import torch

from red_lightning.__main__ import main
from red_lightning.benchmark import CASES
from red_lightning.benchmark.settings import Settings
from red_lightning.cli.benchmark import benchmark
from tests.cli.commands import run_apart


def test_a_case_is_printed_and_written(tmp_path: Path) -> None:
    options = ("--rounds", "1", "--size", "tiny", "--output", "out.json")
    done = run_apart(tmp_path, "benchmark", "--cases", "checkpoint_bytes,many_edits", *options)
    assert done.returncode == 0, done.stderr
    assert "checkpoint_bytes: the files that a run leaves" in done.stdout
    assert "3 different edits" in done.stdout
    assert "each row of a mixed batch has the logits of a batch with its edit alone: holds" in done.stdout
    assert done.stdout.splitlines()[-1] == "wrote out.json"
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {*written} == {"machine", "versions", "settings", "cases"}
    assert {*written["cases"]} == {"checkpoint_bytes", "many_edits"}
    row = written["cases"]["many_edits"]["rows"][1]
    assert len(row["amounts"]) == len(row["ratios"]) == len(row["wall"]) == 1


def test_the_list_of_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [*CASES]
    assert all(len(line) <= 120 for line in shown)


def test_the_options_are_the_settings() -> None:
    options = {name: option.default for name, option in inspect.signature(benchmark).parameters.items()}
    settings = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert {name: default for name, default in options.items() if name not in ("cases", "output")} == settings


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--cases", "step_tim"], "there is no case 'step_tim': did you mean 'step_time'? known: "),
        (["--cases", "step_time,x"], "there is no case 'x': known: "),
        (["--cases", "step_time", "--rounds", "0"], "rounds is 0, but must be at least 1"),
        (
            ["--cases", "step_time", "--output", "no/such/file.json"],
            "the folder of --output no/such/file.json",
        ),
        (["--size", "huge"], "size cannot be 'huge': it takes one of "),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *args]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {sentence}")
    assert len(shown.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--cases", "step_time", "--device", "cuda"]) == 2
    assert "device is cuda, but torch sees no GPU here" in capsys.readouterr().err
