"""Cases one after the other, and the JSON."""

import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from red_lightning.benchmark import CASES, report
from red_lightning.benchmark.measure import Case, count
from red_lightning.benchmark.settings import Settings
from red_lightning.errors import UsageError

NOWHERE = "/no/such/folder"
MISSING = "the data are not here; give another folder"

Measure = Callable[[Settings], Case]
Run = Callable[..., tuple[bool, str, dict[str, Any]]]


def refuse(settings: Settings) -> Case:
    raise UsageError(MISSING)


def fail(settings: Settings) -> Case:
    raise ZeroDivisionError("nothing is left\nof it")


def sound(settings: Settings) -> Case:
    return Case("two files", count("", {"a": 1, "b": 2}, settings), {"all is well": True})


def unsound(settings: Settings) -> Case:
    return Case("two files", count("", {"a": 1, "b": 2}, settings), {"all is well": False})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs cases, and returns whether all held, what was printed, and what was written of each case."""

    def run(**cases: Measure) -> tuple[bool, str, dict[str, Any]]:
        for name, measure in cases.items():
            monkeypatch.setitem(CASES, name, "a case")
            monkeypatch.setitem(sys.modules, f"red_lightning.benchmark.{name}", SimpleNamespace(measure=measure))
        console, file = Console(file=StringIO(), width=100), tmp_path / "out.json"
        held = report.run_cases([*cases], Settings(), file, console)
        return held, console.file.getvalue(), json.loads(file.read_text(encoding="utf-8"))["cases"]  # type: ignore[attr-defined]

    return run


def test_a_case_that_fails_stops_no_other(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    held, text, written = run(first=fail, second=sound)
    assert not held
    assert written["first"] == {"failed": "ZeroDivisionError: nothing is left"}
    assert written["second"]["checks"] == {"all is well": True}
    assert "the case first FAILED: ZeroDivisionError: nothing is left" in text
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "in fail\n" in shown and shown.endswith("nothing is left\nof it\n")


def test_what_does_not_hold_is_no_success(run: Run) -> None:
    assert run(first=sound, second=refuse)[0] is True
    held, text, _ = run(first=unsound, second=sound)
    assert not held
    assert "all is well: DOES NOT HOLD" in text


def test_a_reason_is_said_once(run: Run) -> None:
    _, text, written = run(first=refuse, second=sound, third=refuse)
    assert text.count(MISSING) == 1
    assert "left out, as first\n" in text
    assert written["first"] == written["third"] == {"left_out": MISSING}
    with pytest.raises(UsageError, match=f"^{MISSING}$"):
        run(first=refuse)
    with pytest.raises(UsageError, match=r"^no case could run, for the reasons above$"):
        run(first=refuse, second=refuse)


def test_what_lacks_its_data_is_left_out_and_said(tmp_path: Path) -> None:
    file, console = tmp_path / "out.json", Console(file=StringIO(), width=100)
    settings = Settings(rounds=1, size="tiny", roberta_tokenizer=NOWHERE)
    report.run_cases(["checkpoint_bytes", "glue_training"], settings, file, console)
    written = json.loads(file.read_text(encoding="utf-8"))
    reason = f"the folder '{NOWHERE}' does not exist; give an existing folder or a hub id such as 'org/name'"
    sentence = f"--roberta_tokenizer: {reason}"
    assert written["cases"]["glue_training"] == {"left_out": sentence}
    assert f"left out: {sentence}" in console.file.getvalue()  # type: ignore[attr-defined]
    assert written["settings"]["roberta_tokenizer"] == NOWHERE
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["torch"]
    row = written["cases"]["checkpoint_bytes"]["rows"][1]
    assert row["variant"] == "RED: last.ckpt"
    assert row["ratio"]["median"] == row["ratios"][0] > 1
    with pytest.raises(UsageError, match="does not exist"):
        report.run_cases(["glue_training"], settings, None, console)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", r"is a folder; give the file to write, such as .*speed\.json"),
        ("no/such.json", "the folder of --output .*no/such.json does not exist; create it first"),
        ("file/such.json", "the folder of --output .*file/such.json does not exist; create it first"),
    ],
)
def test_a_file_that_cannot_be_written(name: str, sentence: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    console = Console(file=StringIO())
    with pytest.raises(UsageError, match=sentence):
        report.run_cases(["step_time"], Settings(), tmp_path / name, console)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder in which nobody can write")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(UsageError, match=r"'/proc/speed\.json' cannot be written: .*; give another --output"):
        report.require_writable(Path("/proc/speed.json"))


def test_a_file_that_is_there_stays_until_something_is_measured(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    report.require_writable(tmp_path / "old.json")
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [("old.json", "{}")]
