import json
from importlib import import_module
from pathlib import Path

import pytest

from red_lightning.cli.score import score
from red_lightning.errors import UsageError

NAMES = ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two rows, on a machine without METEOR."""
    monkeypatch.setattr(import_module("red_lightning.metrics.meteor"), "find_spec", lambda name: None)
    references, predictions = tmp_path / "references.txt", tmp_path / "predictions.txt"
    references.write_text("a cheap pub\na pub\n\na bar near it\n\n")
    predictions.write_text("a cheap pub\na bar\n")
    return references, predictions


def test_table_shows_four_scores_and_how_to_get_the_fifth(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    score(*files)
    shown = capsys.readouterr().out
    positions = [shown.index(name) for name in NAMES]
    assert positions == sorted(positions)
    assert "missing" in shown
    assert "python -m pip install pycocoevalcap" in shown


def test_json_has_full_precision(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score(*files, json=str(tmp_path / "scores.json"))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert list(written) == NAMES
    assert written["METEOR"] is None
    capsys.readouterr()
    score(*files, json="-")
    assert json.loads(capsys.readouterr().out) == written


def test_nist_length_penalty(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    values = []
    for penalty in ("pymteval", "mteval"):
        score(*files, json="-", nist_length_penalty=penalty)
        values.append(json.loads(capsys.readouterr().out)["NIST"])
    assert values[0] < values[1]  # 5 tokens against 2.5 + 4, and against 9 / 2


def test_counts_must_match(files: tuple[Path, Path]) -> None:
    files[1].write_text("one\ntwo\nthree\n")
    with pytest.raises(UsageError, match=r"2 groups of references.*3 predictions"):
        score(*files)


def test_json_into_a_missing_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder of .* does not exist"):
        score(*files, json=str(tmp_path / "none" / "scores.json"))


def test_json_onto_a_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot write"):
        score(*files, json=str(tmp_path))


def test_options_come_from_the_signature(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from jsonargparse import auto_cli

    arguments = ["--references", str(files[0]), "--predictions", str(files[1]), "--json", "-"]
    auto_cli(score, args=arguments, as_positional=False)
    assert list(json.loads(capsys.readouterr().out)) == NAMES
