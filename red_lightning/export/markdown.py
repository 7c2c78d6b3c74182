"""Escape values for Markdown."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def table(rows: Mapping[str, Any]) -> str:
    """A table of names and values, without the rows that have no value."""
    shown = [f"| {cell(name)} | {cell(value)} |" for name, value in rows.items() if value not in (None, "", [], {})]
    return "\n".join(["| | |", "|---|---|", *shown]) if shown else ""


def listed(options: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return ", ".join(f"{name}: {cell(value)}" for name, value in options.items())


def cell(value: Any) -> str:
    """A value within a table: on one line, without what Markdown or HTML would make of it."""
    if isinstance(value, Mapping):
        return listed(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(cell(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("<", "&lt;").replace("\\|", "|").replace("|", "\\|")


def number(value: Any) -> str:
    """A number with at most four digits after the point; a dash in place of anything else."""
    return f"{value:,.4f}".rstrip("0").rstrip(".") if is_number(value) else "-"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, as a score is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def link(name: str, kind: str = "") -> str:
    """A link to a repository on the hub; ``kind`` is ``datasets/`` for data."""
    return f"[{name}](https://huggingface.co/{kind}{name})"
