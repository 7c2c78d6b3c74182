"""The paper's results, as data: ``published.yaml``."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from red_lightning.errors import UsageError, nearest

PERCENT = {"accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "bleu", "meteor", "rougel"}
"""Metrics between -1 and 1 that tables show in percent, by :func:`column_key`."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table.

    Attributes:
        parameters: Millions of trained parameters, as printed.
        scores: Column, by :func:`column_key` -> score, as printed.
        deviations: Column -> standard deviation over the seeds, where a table gives it.
    """

    parameters: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    deviations: dict[str, float] = field(default_factory=dict)


@cache
def results() -> dict[str, Any]:
    """The contents of ``published.yaml``."""
    return yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))


def published_row(table: str, row: str) -> PublishedRow:
    """A row of a table of the paper; an empty one if the table has none of that name.

    Args:
        table: Such as ``table1_glue_roberta``.
        row: Its name there, such as ``LoRA (base)``; the asterisk of prior work may be left out.

    Raises:
        UsageError: There is no such table.
    """
    found = next((entry for entry in _table(table) if entry["method"].rstrip("*") == row), None)
    if found is None:
        return PublishedRow()
    scores = {column_key(name): value for name, value in found.items() if name not in ("method", "params_M", "std")}
    return PublishedRow(found.get("params_M"), scores, dict(zip(scores, found.get("std", ()), strict=False)))


def slips(table: str) -> list[str]:
    """What is wrong or unlike our measure in a table, one sentence each."""
    _table(table)
    return list(results()["slips"].get(table, ()))


def published_name(method: str) -> str:
    """What the paper calls a method.

    Args:
        method: Its class name.
    """
    return results()["names"].get(method, method)


def column_key(name: str) -> str:
    """What the names of one column have in common: ``sst2`` for SST-2, ``rougel`` for ROUGE-L and ROUGE_L."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def scale(metric: str) -> float:
    """By what tables multiply a metric: 100 shows it in percent."""
    return 100.0 if column_key(metric.removeprefix("two_class_")) in {column_key(name) for name in PERCENT} else 1.0


def as_measured(metric: str, printed: float) -> float:
    """A score on the scale that a run measures it on."""
    return round(printed / scale(metric), 4)


def _table(name: str) -> list[dict[str, Any]]:
    tables = {key: value for key, value in results().items() if isinstance(value, list)}
    if name not in tables:
        raise UsageError(f"the paper's results have no table '{name}': {nearest(name, tables)}")
    return tables[name]
