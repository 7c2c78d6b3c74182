"""Cases one after the other, their tables, and the JSON."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from rich.console import Console

from red_lightning.benchmark import CASES, benchmark_report
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Row, Table
from red_lightning.errors import UsageError

MISSING = "the data are not here; give another folder"

Case = Callable[[Settings], Iterator[Table]]
Run = Callable[..., tuple[bool, str, dict[str, Any]]]


def refuse(settings: Settings) -> Iterator[Table]:
    raise UsageError(MISSING)


def fail(settings: Settings) -> Iterator[Table]:
    raise ZeroDivisionError("nothing is left\nof it")


def sound(settings: Settings) -> Iterator[Table]:
    yield Table("two files", counts={"bytes": {"a": 1, "b": 2}}, checks={"all is well": True}, notes=["one note"])
    yield Table("three files", counts={"bytes": {"a": 1}}, notes=["one note"])


def unsound(settings: Settings) -> Iterator[Table]:
    yield Table("two files", counts={"bytes": {"a": 1, "b": 2}}, checks={"all is well": False})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs cases, and returns whether all is well, the printed text, and the written cases."""

    def run(**cases: Case) -> tuple[bool, str, dict[str, Any]]:
        for name, case in cases.items():
            monkeypatch.setitem(CASES, name, (name, "a case"))
            monkeypatch.setitem(sys.modules, f"red_lightning.benchmark.{name}", SimpleNamespace(**{name: case}))
        console, file = Console(file=StringIO(), width=100), tmp_path / "out.json"
        held = benchmark_report.run_cases([*cases], Settings(), file, console)
        return held, text_of(console), json.loads(file.read_text(encoding="utf-8"))["cases"]

    return run


def text_of(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_case_that_fails_does_not_stop_the_others(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    held, text, written = run(first=fail, second=sound)
    assert not held
    assert written["first"] == {"failed": "ZeroDivisionError: nothing is left"}
    assert written["second"]["checks"] == {"two files: all is well": True}
    assert written["second"]["notes"] == ["one note"]
    assert "the case first FAILED: ZeroDivisionError: nothing is left" in text
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "in fail\n" in shown and shown.endswith("nothing is left\nof it\n")


def test_a_check_that_does_not_hold_is_a_failure(run: Run) -> None:
    assert run(first=sound, second=refuse)[0] is True
    held, text, _ = run(first=unsound, second=sound)
    assert not held
    assert "all is well: DOES NOT HOLD" in text


def test_a_case_without_its_data_is_left_out(run: Run) -> None:
    _, text, written = run(first=refuse, second=sound)
    assert f"left out: {MISSING}" in text
    assert written["first"] == {"left_out": MISSING}
    with pytest.raises(UsageError, match=f"^{MISSING}$"):
        run(first=refuse)
    with pytest.raises(UsageError, match=r"^no case could run, for the reasons above$"):
        run(first=refuse, second=refuse)


def test_the_json_has_machine_versions_settings_and_amounts(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    settings = Settings(rounds=1, size="tiny", roberta_tokenizer="/no/such/folder")
    benchmark_report.run_cases(["checkpoint_bytes"], settings, file, Console(file=StringIO(), width=100))
    written = json.loads(file.read_text(encoding="utf-8"))
    assert {*written} == {"machine", "versions", "settings", "cases"}
    assert written["settings"]["roberta_tokenizer"] == "/no/such/folder"
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["torch"]
    row = written["cases"]["checkpoint_bytes"]["rows"][1]
    assert row["variant"] == "RED: last.ckpt"
    assert 0 < row["ratio"]["median"] == row["ratios"][0] < 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", r"is a folder; give the file to write, such as .*speed\.json"),
        ("no/such.json", "the folder of --output .*no/such.json does not exist; create it first"),
        ("file/such.json", "the folder of --output .*file/such.json does not exist; create it first"),
    ],
)
def test_a_file_that_cannot_be_written(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    console = Console(file=StringIO())
    with pytest.raises(UsageError, match=sentence):
        benchmark_report.run_cases(["step_time"], Settings(), tmp_path / name, console)
    assert text_of(console) == ""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder in which nobody can write")
def test_a_folder_that_accepts_no_files() -> None:
    with pytest.raises(UsageError, match=r"'/proc/speed\.json' cannot be written: .*; give another --output"):
        benchmark_report.require_writable(Path("/proc/speed.json"))


def test_an_existing_file_stays_until_something_is_measured(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    benchmark_report.require_writable(tmp_path / "old.json")
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [("old.json", "{}")]


def timed(variant: str, amounts: list[float], ratios: list[float]) -> Row:
    return Row("a shape", variant, "s/step", amounts, ratios, amounts, [2 * ratio for ratio in ratios])


def cells(text: str, variant: str) -> list[str]:
    line = next(line for line in text.splitlines() if f"│ {variant} " in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_table_shows_times_counts_checks_and_notes() -> None:
    rows = [timed("base", [0.010, 0.012, 0.014], [1.0] * 3), timed("other", [0.011] * 3, [1.1, 0.9, 0.8])]
    rows += [Row("a shape", "all", "bytes", [12_345], [1.0]), Row("a shape", "few", "bytes", [5], [5 / 12_345])]
    table = Table("a shape", checks={"this": True, "that": False}, notes=["something"])
    console = Console(file=StringIO(), width=100)
    benchmark_report.print_table(table, rows, console)
    text = text_of(console)
    assert text.startswith("a shape")
    assert cells(text, "base") == ["base", "12 ms", "11 ms - 13 ms", "baseline", "baseline"]
    assert cells(text, "other") == ["other", "11 ms", "11 ms - 11 ms", "0.9", "1.8"]
    assert cells(text, "all") == ["all", "12,345", "baseline"]
    assert cells(text, "few") == ["few", "5", "0.000405"]
    assert text.splitlines()[-3:] == ["this: holds", "that: DOES NOT HOLD", "note: something"]


@pytest.mark.parametrize("width", [60, 1000])
def test_no_name_is_cut(width: int) -> None:
    name = "a_name_" * 20
    console = Console(file=StringIO(), width=width)
    benchmark_report.print_table(Table("a shape"), [timed(name, [0.1], [1.5])], console)
    assert "…" not in text_of(console)


def test_a_file_has_wide_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", StringIO())  # not a terminal
    assert benchmark_report._wide_console().width == 1000


@pytest.mark.parametrize(
    ("amount", "shown"), [(2.5, "2.5 s"), (0.0134, "13.4 ms"), (8.1e-6, "8.1 us"), (1e-9, "0.001 us")]
)
def test_seconds(amount: float, shown: str) -> None:
    assert benchmark_report.seconds(amount) == shown


def test_warnings_are_silent_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    late = logging.getLogger("late")
    with warnings.catch_warnings(record=True) as caught, pytest.raises(KeyError), benchmark_report.quiet():
        late.setLevel(logging.DEBUG)  # as libraries do when they are imported
        late.warning("a warning")
        rank_zero_info("an information")
        late.error("an error")
        warnings.warn("a warning", stacklevel=1)
        raise KeyError
    late.warning("later")
    assert [record.getMessage() for record in caplog.records] == ["an error", "later"]
    assert not caught
