"""The tables and the JSON."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from red_lightning.benchmark import report
from red_lightning.benchmark.measure import Case, Goal, Row, count
from red_lightning.benchmark.settings import Settings
from red_lightning.errors import UsageError

NOWHERE = "/no/such/folder"


def printed(case: Case) -> str:
    console = Console(file=StringIO(), width=100)
    report.print_case(case, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def timed(variant: str, amounts: list[float], ratios: list[float], **options: object) -> Row:
    return Row("a shape", variant, "s/step", amounts, ratios, wall=amounts, wall_ratios=ratios, **options)  # type: ignore[arg-type]


def cells(text: str, variant: str) -> list[str]:
    line = next(line for line in text.splitlines() if f"│ {variant} " in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_table_shows_times_ratios_and_goals() -> None:
    base = timed("base", [0.010, 0.012, 0.014], [1.0] * 3)
    rival = timed("rival", [0.011, 0.011, 0.011], [1.1, 0.9, 0.8], goal=1.0, peak_bytes=2_000_000)
    text = printed(Case("a title", [base, rival], {"this": True, "that": False}, ["something"]))
    assert text.splitlines()[:2] == ["a title", "a shape".ljust(len(text.splitlines()[1]))]
    assert cells(text, "base") == ["base", "12 ms", "11 ms - 13 ms", "baseline", "", "", "", ""]
    assert cells(text, "rival") == ["rival", "11 ms", "11 ms - 11 ms", "0.900", "0.900", "2.0 MB", "<= 1.000", "yes"]
    assert text.splitlines()[-3:] == ["this: holds", "that: DOES NOT HOLD", "note: something"]


def test_columns_without_content_are_left_out() -> None:
    rows = count("files", {"all": 12_345, "few": 5}, Settings(), gain=True, goals={"few": Goal(cpu=3000)})
    text = printed(Case("", rows))
    assert cells(text, "all") == ["all", "12,345", "baseline", "", ""]
    assert cells(text, "few") == ["few", "5", "2,469x", ">= 3,000x", "no"]
    assert "quartiles" not in text
    assert "wall" not in text


def test_goals_are_gathered_in_one_table() -> None:
    console = Console(file=StringIO(), width=100)
    slow = timed("ours", [0.1], [1.5], goal=1.01)
    report.print_goals([("step_time", slow)], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert cells(text, "step_time") == ["step_time", "a shape", "ours", "1.500", "<= 1.010", "no"]
    report.print_goals([], silent := Console(file=StringIO()))
    assert silent.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("amount", "shown"), [(2.5, "2.5 s"), (0.0134, "13.4 ms"), (8.1e-6, "8.1 us"), (1e-9, "0.001 us")]
)
def test_seconds(amount: float, shown: str) -> None:
    assert report.seconds(amount) == shown


def test_what_lacks_its_data_is_left_out_and_said(tmp_path: Path) -> None:
    file, console = tmp_path / "out.json", Console(file=StringIO(), width=100)
    settings = Settings(rounds=1, size="tiny", roberta_tokenizer=NOWHERE)
    report.run_cases(["checkpoint_bytes", "glue_training"], settings, file, console)
    written = json.loads(file.read_text(encoding="utf-8"))
    sentence = f"the folder '{NOWHERE}' does not exist; give an existing folder or a hub id such as 'org/name'"
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


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    console = Console(file=StringIO())
    with pytest.raises(UsageError, match=r"cannot be written: .*; give another --output"):
        report.run_cases(["checkpoint_bytes"], Settings(rounds=1, size="tiny"), tmp_path / "no/such.json", console)
