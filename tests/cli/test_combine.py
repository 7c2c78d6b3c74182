"""``combine`` from the command line to a model that uses what it wrote."""

import json
from pathlib import Path

import pytest
import torch

from red_lightning import apply_edits
from red_lightning.__main__ import main
from tests.adapters.test_combining import leave
from tests.adapters.test_file_format import outputs
from tests.backbones_zoo import build
from tests.cli.commands import run_apart


def test_edits_are_interpolated(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        leave(tmp_path / name / "edits", number)
    ended = run_apart(tmp_path, "combine", "a", "b", "--weights", "1", "0", "--output", "c")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "wrote c\n", "")
    models = [build("gpt2"), build("gpt2")]
    apply_edits(models[0], tmp_path / "a/edits")
    apply_edits(models[1], tmp_path / "c")
    assert torch.equal(outputs(models[0]), outputs(models[1]))


def test_edits_are_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("abc"):
        leave(tmp_path / name, number)
    assert main(["combine", "a", "b", "c", "--how", "stack", "--output", "d"]) == 0
    record = json.loads((tmp_path / "d/edits.json").read_text(encoding="utf-8"))
    assert [source["edits"] for source in record["combined"]["sources"]] == ["a", "b", "c"]
    assert record["combined"]["how"] == "stack"


def test_an_edit_is_subtracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("ab"):
        leave(tmp_path / name, number)
    assert main(["combine", "a", "b", "--output", "c", "--weights", "1.5", "-0.5"]) == 0
    record = json.loads((tmp_path / "c/edits.json").read_text(encoding="utf-8"))
    assert [source["weight"] for source in record["combined"]["sources"]] == [1.5, -0.5]


def test_other_decodings_are_said_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("ab"):
        leave(tmp_path / name, number, decoding={"num_beams": number + 1})
    assert main(["combine", "a", "b", "--output", "c"]) == 0
    assert "note: the runs differ in decoding, so the" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["a", "b", "--weights", "1"], "error: there are 2 edits, but 1 weights; give one for each of the edits"),
        (["a", "b", "--weights", "1", "b"], "error: weights cannot be 'b': it takes a number"),
        (["a", "b", "--how", "product"], "product"),
        (["a", "./none"], "error: the folder './none' does not exist"),
        ([], "error: no edits to combine are given: name runs' folders"),
        (["nowhere/x", "--revision", "one"], "error: the set of edits 'nowhere/x' is not on this machine"),
    ],
)
def test_bad_input_is_one_sentence(
    args: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("ab"):
        leave(tmp_path / name, number)
    assert main(["combine", *args, "--output", "c"]) == 2
    shown = capsys.readouterr().err
    assert complaint in shown and shown.count("\n") == 1, shown
