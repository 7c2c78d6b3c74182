"""The tables."""

from io import StringIO

import pytest
from rich.console import Console

from red_lightning.benchmark import tables
from red_lightning.benchmark.measure import Case, Goal, Row, count
from red_lightning.benchmark.settings import Settings


def printed(case: Case) -> str:
    console = Console(file=StringIO(), width=100)
    tables.print_case(case, console)
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
    tables.print_goals([("step_time", slow)], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert cells(text, "step_time") == ["step_time", "a shape", "ours", "time per step", "1.500", "<= 1.010", "no"]
    tables.print_goals([], silent := Console(file=StringIO()))
    assert silent.file.getvalue() == ""  # type: ignore[attr-defined]


def test_goals_of_one_variant_differ_in_what_is_compared() -> None:
    goals = {"ours": Goal(cpu=0.5)}
    rows = [timed("ours", [0.1], [1.5], goal=1.01)]
    rows += [count("a shape", {"base": 2, "ours": 1}, Settings(), unit, goals=goals)[1] for unit in ("bytes", "tokens")]
    console = Console(file=StringIO(), width=100)
    tables.print_goals([("case", row) for row in rows], console)
    lines = [line for line in console.file.getvalue().splitlines() if "ours" in line]  # type: ignore[attr-defined]
    assert [line.split("│")[4].strip() for line in lines] == ["time per step", "bytes", "tokens"]


def test_no_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a_name_" * 20
    slow = timed(name, [0.1], [1.5], goal=1.01)
    monkeypatch.setattr("sys.stdout", StringIO())  # no terminal
    console = tables.wide_console()
    tables.print_goals([("case", slow)], console)
    tables.print_case(Case("", [slow]), console)
    assert console.file.getvalue().count(name) == 2  # type: ignore[attr-defined]
    narrow = Console(file=StringIO(), width=60)
    tables.print_goals([("a_case_with_a_name", slow)], narrow)
    assert "…" not in narrow.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("amount", "shown"), [(2.5, "2.5 s"), (0.0134, "13.4 ms"), (8.1e-6, "8.1 us"), (1e-9, "0.001 us")]
)
def test_seconds(amount: float, shown: str) -> None:
    assert tables.seconds(amount) == shown
