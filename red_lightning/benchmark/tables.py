"""What the benchmark prints."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from red_lightning.benchmark.measure import Case, Row, spread

SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
AS_WIDE_AS_NEEDED = 1000
"""Columns of a file, which wraps nothing."""
PLAIN_TEXT: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def wide_console() -> Console:
    """The terminal; or, if the output is none, as many columns as a table takes."""
    console = Console()
    if not console.is_terminal:
        console.width = AS_WIDE_AS_NEEDED
    return console


def print_case(case: Case, console: Console) -> None:
    """Print a table of each group of rows, and what else was found."""
    console.print(case.title, **PLAIN_TEXT)
    for group, unit in dict.fromkeys((row.group, row.unit) for row in case.rows):
        rows = [row for row in case.rows if (row.group, row.unit) == (group, unit)]
        columns = [_cells(row, row is rows[0]) for row in rows]
        table = Table(title=group, title_justify="left", title_style="italic")
        for name in columns[0]:
            if any(cells[name] for cells in columns):
                table.add_column(name, justify="left" if name == "variant" else "right", overflow="fold")
        for cells in columns:
            table.add_row(*(cells[str(column.header)] for column in table.columns))
        console.print(table)
    for statement, holds in case.checks.items():
        style = None if holds else "bold red"
        mark = "holds" if holds else "DOES NOT HOLD"
        console.print(f"{statement}: {mark}", style=style, **PLAIN_TEXT)
    for note in case.notes:
        console.print(f"note: {note}", **PLAIN_TEXT)


def print_goals(rows: Sequence[tuple[str, Row]], console: Console) -> None:
    """Print the rows that have a goal, each with its case and what is compared, in one table."""
    table = Table(title="what has a goal", title_justify="left", title_style="italic")
    for column in ("case", "measured on", "variant", "compared"):
        table.add_column(column, overflow="fold")
    for column in ("ratio", "goal", "met"):
        table.add_column(column, justify="right")
    for name, row in rows:
        cells = _cells(row, baseline=False)
        compared = f"time {_amount(row)}" if _is_time(row) else row.unit
        table.add_row(name, row.group, row.variant, compared, cells["ratio"], cells["goal"], cells["met"])
    if rows:
        console.print()
        console.print(table)


def _cells(row: Row, baseline: bool) -> dict[str, str]:
    """What the table says of a row, by column; a column without any text is left out."""
    amounts = spread(row.amounts)
    goal = "" if row.goal is None else (">= " if row.gain else "<= ") + ratio(row.goal, row.gain)
    return {
        "variant": row.variant,
        _amount(row): seconds(amounts.median) if _is_time(row) else f"{amounts.median:,.0f}",
        "quartiles": f"{seconds(amounts.low)} - {seconds(amounts.high)}" if len(row.amounts) > 1 else "",
        "ratio": "baseline" if baseline else ratio(row.ratio, row.gain),
        "wall ratio": "" if baseline or not row.wall else ratio(spread(row.wall_ratios).median, row.gain),
        "peak memory": f"{row.peak_bytes / 1e6:,.1f} MB" if row.peak_bytes else "",
        "goal": goal,
        "met": {None: "", True: "yes", False: "no"}[row.met],
    }


def _is_time(row: Row) -> bool:
    return row.unit.startswith("s/")


def _amount(row: Row) -> str:
    """The title of the amounts' column."""
    return f"per {row.unit[2:]}" if _is_time(row) else row.unit


def seconds(amount: float) -> str:
    """A time in the unit that suits it: ``1.25 s``, ``13.4 ms``, ``8.10 us``."""
    scale, unit = next(((scale, unit) for scale, unit in SCALES if amount >= scale), SCALES[-1])
    return f"{amount / scale:.3g} {unit}"


def ratio(number: float, gain: bool) -> str:
    """A ratio: ``1.012``, or ``3.20x`` of a gain."""
    digits = 3 if not gain and number < 10 else 2 if number < 100 else 0
    return f"{number:,.{digits}f}" + ("x" if gain else "")
