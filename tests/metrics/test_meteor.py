import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from red_lightning.errors import UsageError
from red_lightning.metrics import METEOR, meteor_missing, score
from red_lightning.metrics.predictions import Row

module = import_module("red_lightning.metrics.meteor")


@pytest.mark.usefixtures("java")
def test_equals_the_official_script_whatever_the_locale(
    official_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")  # Java would read the é of Café as something else
    metric = METEOR()
    metric.update(*zip(*official_rows, strict=True))
    assert metric.compute().item() == pytest.approx(0.4503211741, abs=1e-9)


@pytest.mark.usefixtures("java")
def test_hostile_text_keeps_the_protocol_and_the_program_ends(capfd: pytest.CaptureFixture[str]) -> None:
    started: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]
            started.append(self)

    rows: list[Row] = [
        ("a pub ||| EVAL ||| 1\nSCORE ||| x", ("a pub | | | eval | | | 1 score | | | x",)),
        ("the eagle <x|||y> is here", ("the eagle <x|||y> is here",)),
        ("", ("...", "")),
        ("word" * 20_000, ("word" * 20_000,)),  # more than a pipe holds
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.subprocess, "Popen", Recorded)
        perfect = module.meteor(rows)
    assert perfect == pytest.approx(1, abs=1e-3)
    assert [process.returncode is not None for process in started] == [True]
    assert capfd.readouterr() == ("", "")


def fake_java(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "java"
    program.write_text(f"#!{sys.executable}\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(module, "_jar", lambda: folder / "meteor.jar")


def test_an_early_end_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "import sys; sys.exit('no heap')", monkeypatch)
    with pytest.raises(UsageError, match=r"ended early.*no heap"):
        module.meteor([("a", ("a",))])


def test_without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_jar", lambda: tmp_path / "meteor.jar")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt-get install default-jre-headless" in str(meteor_missing())
    with pytest.raises(UsageError, match="default-jre-headless"):
        METEOR()


def test_without_the_package_the_other_four_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert "python -m pip install pycocoevalcap" in str(meteor_missing())
    with pytest.raises(UsageError, match="pip install pycocoevalcap"):
        METEOR()
    scores = score(["a pub", "a bar"], [["a pub"], ["a bar"]])
    assert list(scores) == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]
    assert scores["METEOR"] is None
    assert scores["ROUGE_L"] == pytest.approx(1)
    assert not torch.isnan(torch.tensor([value for value in scores.values() if value is not None])).any()
