"""Collect the results of a study's runs for its table."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from red_lightning.paper.published import PublishedRow, column_key, published_row, scale, slips
from red_lightning.studies.cell_runs import State
from red_lightning.studies.cells import Cell
from red_lightning.studies.study_file import Study
from red_lightning.studies.table_layout import METRICS

AVERAGE = "Avg"
SMALLER_IS_BETTER = ("loss", "perplexity", "mse")

Row = tuple[str, ...]
"""The labels of a row, one for each axis of ``report.rows``."""


@dataclass
class Entry:
    """One place of a table.

    Attributes:
        metric: What was measured there; empty before anything was.
        scores: Label of the axis that is averaged over -> score, as tables show it (percent, where they do).
        runs: The names of those runs.
        expected: How many runs there are to be.
        failed: How many failed.
        best_of: The rule by which some of them count, if not all do.
    """

    metric: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    expected: int = 0
    failed: int = 0
    best_of: list[int] | None = None

    @property
    def counted(self) -> list[float]:
        """The scores that count: all, or the best by the authors' rule (which needs all its runs)."""
        values = list(self.scores.values())
        if self.best_of is None:
            return values
        best, of = self.best_of
        return sorted(values, reverse=self.metric not in SMALLER_IS_BETTER)[:best] if len(values) >= of else []

    @property
    def mean(self) -> float | None:
        """The mean score."""
        return fmean(self.counted) if self.counted else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the sample."""
        return stdev(self.counted) if len(self.counted) > 1 else None


@dataclass
class Results:
    """A table before it is laid out.

    Attributes:
        study: Whose it is.
        rows: Its rows, the first axis of the report outermost, labels in the order of the file.
        columns: Its columns.
        entries: (Row, column) -> what was found.
        parameters: Row -> number of trained parameters, that of the head not counted; several where runs differ.
        published: Row -> the paper's.
        notes: What a reader must know.
    """

    study: Study
    rows: list[Row]
    columns: list[str]
    entries: dict[tuple[Row, str], Entry]
    parameters: dict[Row, set[int]]
    published: dict[Row, PublishedRow]
    notes: list[str]

    def mean(self, row: Row, column: str) -> float | None:
        """A mean score; that of the average is the mean of the other columns, if none is missing."""
        if column != AVERAGE:
            return self.entries[row, column].mean
        means = [self.entries[row, each].mean for each in self.columns if each != AVERAGE]
        return None if None in means else fmean(mean for mean in means if mean is not None)

    def groups(self) -> list[list[Row]]:
        """Rows that are compared with each other: they share all labels but that of the last axis."""
        return [list(rows) for _, rows in groupby(self.rows, lambda row: row[:-1])]

    def best(self, row: Row, column: str) -> float | None:
        """The best mean of a column in the group of a row."""
        metrics = {entry.metric for (_, name), entry in self.entries.items() if name == column and entry.metric}
        group = [other for other in self.rows if other[:-1] == row[:-1]]
        means = [mean for other in group if (mean := self.mean(other, column)) is not None]
        choose = min if metrics & {*SMALLER_IS_BETTER} else max
        return choose(means) if means else None

    def published_score(self, row: Row, column: str) -> float | None:
        """The paper's score of an entry."""
        return self.published[row].scores.get(column_key(column))

    def published_deviation(self, row: Row, column: str) -> float | None:
        """The standard deviation that the paper gives."""
        return self.published[row].deviations.get(column_key(column))


def collect(study: Study, cells: Iterable[Cell], state: Callable[[Cell], State]) -> Results:
    """Gather what the runs of a study found.

    Args:
        study: It.
        cells: Its cells, those included that have not run.
        state: What became of one.
    """
    report, states = study.report, [(cell, state(cell)) for cell in cells]
    order = [list(study.axes[axis]) for axis in report.rows]
    rows = sorted({_row(study, cell) for cell, _ in states}, key=lambda row: [*map(list.index, order, row)])
    columns = _columns(study, states)
    entries = {(row, column): Entry(best_of=report.best_of.get(column)) for row in rows for column in columns}
    parameters: dict[Row, set[int]] = {row: set() for row in rows}
    for cell, of in states:
        row = _row(study, cell)
        for column in columns if report.columns == METRICS else [cell.labels[report.columns]]:
            _add(entries[row, column], study, cell, of, column)
        if of.result and "trainable_parameters" in of.result:
            parameters[row].add(of.result["trainable_parameters"])
    if report.average:
        columns = [*columns, AVERAGE]
    published = {row: _published(study, row) for row in rows}
    return Results(study, rows, columns, entries, parameters, published, _notes(study, states))


def _add(entry: Entry, study: Study, cell: Cell, state: State, column: str) -> None:
    entry.expected += 1
    entry.failed += state.kind == "failed"
    if state.result is None:
        return
    measured = {name: score for name, score in state.result["scores"].items() if score is not None}
    if study.report.columns == METRICS:
        metric = column
    else:
        metric = next((name for name in study.report.metrics or measured if name in measured), "")
    if metric in measured and math.isfinite(measured[metric]):
        seed = cell.labels[study.report.over]
        entry.metric = metric
        entry.scores[seed] = measured[metric] * scale(metric)
        entry.runs[seed] = cell.name


def _row(study: Study, cell: Cell) -> Row:
    return tuple(cell.labels[axis] for axis in study.report.rows)


def _columns(study: Study, states: Iterable[tuple[Cell, State]]) -> list[str]:
    if study.report.columns != METRICS:
        present = {cell.labels[study.report.columns] for cell, _ in states}
        return [label for label in study.axes[study.report.columns] if label in present]
    if study.report.metrics:
        return list(study.report.metrics)
    return list(dict.fromkeys(name for _, of in states if of.result for name in of.result["scores"])) or ["score"]


def _published(study: Study, row: Row) -> PublishedRow:
    source: Mapping[str, str] = study.report.published or {}
    if not source:
        return PublishedRow()
    name = source["row"].format(**dict(zip(study.report.rows, row, strict=True)))
    found = published_row(source["table"], name)
    spread: Any = published_row(source["std"], name).deviations if "std" in source else found.deviations
    return PublishedRow(found.parameters, found.scores, spread)


def _notes(study: Study, states: Iterable[tuple[Cell, State]]) -> list[str]:
    notes = []
    for column, (best, of) in study.report.best_of.items():
        notes.append(f"{column}: mean of the best {best} of {of} seeds by the test score (the authors' rule)")
    for key in ("table", "std"):
        notes += slips(study.report.published[key]) if study.report.published and key in study.report.published else []
    if states and any("head_parameters" in of.result for _, of in states if of.result):
        notes.append("the classification head trains besides, and is not counted")
    return notes + _selections([of.result.get("selection", {}) for _, of in states if of.result])


def _selections(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What chose the best checkpoints, if that differs between runs or is not what was asked for."""
    chosen = Counter(selection["monitor"] for selection in found if "monitor" in selection)
    replaced = [selection for selection in found if selection.get("reason")]
    if not replaced and len(chosen) < 2:
        return []
    counts = " and ".join(f"by {monitor} in {count} of {len(found)} runs" for monitor, count in chosen.items())
    wanted = ", ".join(dict.fromkeys(f"{selection['wanted']} ({selection['reason']})" for selection in replaced))
    return [f"the best checkpoint was chosen {counts}" + (f"; it was to be {wanted}" if wanted else "")]
