"""The part ``report`` of a study file: the layout of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from red_lightning.errors import UsageError, nearest
from red_lightning.paper.published import published_row
from red_lightning.studies.study_checks import labels_of, listed, mapping, refuse_unknown

METRICS = "metrics"
"""In place of an axis, the columns of a table whose runs measure several metrics."""


@dataclass(frozen=True)
class Report:
    """What the table looks like.

    Attributes:
        rows: The axes whose labels are its rows.
        columns: The axis whose labels are its columns, or ``metrics``.
        over: The axis that is averaged over.
        metrics: The metrics shown; the first that a run measured counts where ``columns`` is an axis. None takes the
            runs' own.
        average: Whether a last column holds the mean of the others.
        against: The label of a row to which the others are compared.
        published: ``table`` (of ``published.yaml``) and ``row``, a pattern such as ``"{method} ({backbone})"``.
        best_of: Column -> [k, n]: the mean of the best k of n seeds by the test score (the authors' rule).
    """

    rows: tuple[str, ...]
    columns: str
    over: str = "seed"
    metrics: tuple[str, ...] | None = None
    average: bool = False
    against: str | None = None
    published: dict[str, str] | None = None
    best_of: dict[str, list[int]] = field(default_factory=dict)


def read_report(content: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> Report:
    """Read it.

    Args:
        content: What the file says.
        axes: The axes of the study with their labels.
        path: The file.

    Raises:
        UsageError: A part is unknown or refers to what is not there.
    """
    names = [part.name for part in fields(Report)]
    content = mapping(content, f"{path}: report")
    refuse_unknown(content, names, f"{path}: report")
    over, columns = str(content.get("over", "seed")), str(content.get("columns", METRICS))
    rows = content.get("rows", [axis for axis in axes if axis not in (over, columns)])
    rows = tuple(map(str, rows if isinstance(rows, list) else [rows]))
    used = [*rows, over, *([] if columns == METRICS else [columns])]
    if unknown := [axis for axis in used if axis not in axes]:
        raise UsageError(f"{path}: report names the axis '{unknown[0]}': {nearest(unknown[0], axes)}")
    if idle := [axis for axis in axes if used.count(axis) != 1]:
        raise UsageError(f"{path}: the axis {idle[0]} must be one of report.rows, report.columns and report.over")
    against = None if content.get("against") is None else str(content["against"])
    row_labels = [label for axis in rows for label in axes[axis]]
    if against is not None and against not in row_labels:
        raise UsageError(f"{path}: report.against is no label of a row: {nearest(against, row_labels)}")
    best_of = mapping(content.get("best_of") or {}, f"{path}: report.best_of")
    for column, rule in best_of.items():
        if columns != METRICS:
            labels_of(axes, columns, column)
        whole = isinstance(rule, list) and len(rule) == 2 and all(isinstance(number, int) for number in rule)
        if not (whole and 0 < rule[0] <= rule[1]):
            raise UsageError(f"{path}: report.best_of.{column} must be two numbers such as [5, 15]")
    _check_published(content.get("published"), rows, path)
    metrics = tuple(map(str, listed(content.get("metrics") or [], f"{path}: report.metrics"))) or None
    read = {"rows": rows, "columns": columns, "over": over, "metrics": metrics, "against": against, "best_of": best_of}
    return Report(**{**content, **read})


def _check_published(published: Any, rows: Sequence[str], path: Path) -> None:
    if published is None:
        return
    place = f"{path}: report.published"
    refuse_unknown(mapping(published, place), ("table", "row", "std"), place)
    if not {"table", "row"} <= {*published}:
        raise UsageError(f"{place} needs table and row")
    for table in (published["table"], published.get("std", published["table"])):
        published_row(table, "")
    try:
        published["row"].format(**dict.fromkeys(rows, ""))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UsageError(f"{place}.row may name the axes {', '.join(rows)} in braces, not {error}") from error
