"""A study file: one base experiment, axes over its settings, and the table that they fill.

The parts of a file (``configs/studies/own_texts.yaml`` is a whole one of ten lines)::

    title: GLUE on RoBERTa
    config: roberta_base_glue       # the experiment that every run starts from: a path or a shipped one
    set: {trainer.precision: bf16-mixed}                 # settings of every run
    axes:                           # each run takes one label of every axis; a label stands for settings
      method:
        RED: {model.method: RED}
        LoRA: {model.method: LoRA, model.method.rank: 8}
      task: {key: data.task, values: [mrpc, cola]}       # short for mrpc: {data.task: mrpc}, ...
      seed: {key: seed_everything, values: [42, 43]}
    skip: [{method: LoRA, task: cola}]                   # combinations that do not run
    select: {on: validation, over: model.learning_rate, values: [1.0e-3, 1.0e-2], budget: 2, seed: 42}
    report: {rows: method, columns: task, against: RED}

A label may also say ``config`` (another experiment) and ``recipe`` (the options that the paper gives its method there,
see ``paper.yaml``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from red_lightning.errors import UsageError, nearest
from red_lightning.reproduction.published import published_row

Labels = dict[str, str]
"""Axis -> label."""

METRICS = "metrics"
"""In place of an axis, the columns of a table whose runs measure several metrics."""


@dataclass(frozen=True)
class Select:
    """How one setting is chosen before the test split is touched.

    Attributes:
        over: The setting, such as ``model.learning_rate``.
        values: Those that are tried; by label of an axis (a method's own values), where they differ.
        budget: How many are tried for every row of the table: the same number for each.
        seed: The labels of the axis that is averaged over with which they are tried.
        on: The split that decides.
    """

    over: str
    values: Any
    budget: int
    seed: Any
    on: str = "validation"


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


@dataclass(frozen=True)
class Study:
    """The contents of a study file.

    Attributes:
        path: The file.
        title: What its tables are called.
        config: The experiment that every run starts from, unless a label names another.
        settings: Those of every run.
        axes: Axis -> label -> settings.
        skip: Combinations that do not run: axis -> labels.
        select: How a setting is chosen first, if one is.
        report: Its table.
    """

    path: Path
    title: str
    config: str | None
    settings: dict[str, Any]
    axes: dict[str, dict[str, dict[str, Any]]]
    skip: tuple[dict[str, list[str]], ...]
    select: Select | None
    report: Report

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        UsageError: It is no YAML, or a part of it is unknown, missing or refers to what is not there.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"the study '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "axes" not in content:
        raise UsageError(f"'{path}' is not a study file: it has no axes")
    known = ("title", "config", "set", "axes", "skip", "select", "report")
    content = _mapping(content, str(path))
    _refuse_unknown(content, known, str(path))
    axes = _axes(content["axes"], path)
    return Study(
        path,
        content.get("title") or path.stem,
        content.get("config"),
        _mapping(content.get("set") or {}, f"{path}: set"),
        axes,
        tuple(_skipped(entry, axes, path) for entry in content.get("skip") or ()),
        _select(content["select"], axes, path) if content.get("select") else None,
        _report(content.get("report") or {}, axes, path),
    )


def labels_of(axes: Mapping[str, Mapping[str, Any]], axis: str, labels: Any) -> list[str]:
    """The labels that someone means, all of them known.

    Args:
        axes: Axis -> its labels.
        axis: The axis.
        labels: One or several.

    Raises:
        UsageError: Axis or label is unknown; names the nearest.
    """
    if axis not in axes:
        raise UsageError(f"the study has no axis '{axis}': {nearest(axis, axes)}")
    meant = [str(label) for label in (labels if isinstance(labels, list | tuple) else [labels])]
    for label in meant:
        if label not in axes[axis]:
            raise UsageError(f"the axis {axis} has no '{label}': {nearest(label, axes[axis])}")
    return meant


def _axes(content: Any, path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    axes = {}
    for axis, labels in _mapping(content, f"{path}: axes").items():
        place = f"{path}: the axis {axis}"
        labels = _mapping(labels, place)
        if {*labels} == {"key", "values"}:
            labels = {str(value): {labels["key"]: value} for value in labels["values"] or ()}
        axes[axis] = {str(name): _mapping(of or {}, f"{place}, {name}") for name, of in labels.items()}
        if not axes[axis]:
            raise UsageError(f"{place} has no labels")
    return axes


def _skipped(entry: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, list[str]]:
    return {axis: labels_of(axes, axis, labels) for axis, labels in _mapping(entry, f"{path}: skip").items()}


def _select(content: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> Select:
    names = [part.name for part in fields(Select)]
    content = _mapping(content, f"{path}: select")
    _refuse_unknown(content, names, f"{path}: select")
    for name in ("over", "values", "budget", "seed"):
        if content.get(name) is None:
            raise UsageError(f"{path}: select needs {name}")
    select = Select(**content)
    if select.on != "validation":
        raise UsageError(f"{path}: select.on is {select.on}, but settings are chosen on validation alone")
    lists = select.values.items() if isinstance(select.values, dict) else [("", select.values)]
    for label, values in lists:
        if label and not any(label in labels for labels in axes.values()):
            known = [name for labels in axes.values() for name in labels]
            raise UsageError(f"{path}: select.values: no axis has the label '{label}': {nearest(str(label), known)}")
        if not isinstance(values, list) or len(values) != select.budget:
            of = f" of {label}" if label else ""
            raise UsageError(f"{path}: select.values{of} must be a list of {select.budget} values: the same for all")
    return select


def _report(content: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> Report:
    names = [part.name for part in fields(Report)]
    content = _mapping(content, f"{path}: report")
    _refuse_unknown(content, names, f"{path}: report")
    over = content.get("over", "seed")
    columns = content.get("columns", METRICS)
    rows = content.get("rows", [axis for axis in axes if axis not in (over, columns)])
    rows = tuple([rows] if isinstance(rows, str) else rows)
    used = [*rows, over, *([] if columns == METRICS else [columns])]
    if unknown := [axis for axis in used if axis not in axes]:
        raise UsageError(f"{path}: report names the axis '{unknown[0]}': {nearest(unknown[0], axes)}")
    if idle := [axis for axis in axes if used.count(axis) != 1]:
        raise UsageError(f"{path}: the axis {idle[0]} must be one of report.rows, report.columns and report.over")
    against = content.get("against")
    row_labels = [label for axis in rows for label in axes[axis]]
    if against is not None and against not in row_labels:
        raise UsageError(f"{path}: report.against is no label of a row: {nearest(against, row_labels)}")
    best_of = content.get("best_of") or {}
    for column, rule in best_of.items():
        if columns != METRICS:
            labels_of(axes, columns, column)
        if not (isinstance(rule, list) and len(rule) == 2 and 0 < rule[0] <= rule[1]):
            raise UsageError(f"{path}: report.best_of.{column} must be two numbers such as [5, 15]")
    _check_published(content.get("published"), rows, path)
    metrics = content.get("metrics")
    return Report(**{**content, "rows": rows, "columns": columns, "metrics": metrics and tuple(metrics)})


def _check_published(published: Any, rows: Sequence[str], path: Path) -> None:
    if published is None:
        return
    place = f"{path}: report.published"
    _refuse_unknown(_mapping(published, place), ("table", "row", "std"), place)
    if not {"table", "row"} <= {*published}:
        raise UsageError(f"{place} needs table and row")
    for table in (published["table"], published.get("std", published["table"])):
        published_row(table, "")
    try:
        published["row"].format(**dict.fromkeys(rows, ""))
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"{place}.row may name the axes {', '.join(rows)} in braces, not {error}") from error


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{place} must be a mapping, not '{value}'")
    words = {True: "on", False: "off"}  # what YAML 1.1 makes of these words
    return {words[key] if isinstance(key, bool) else str(key): of for key, of in value.items()}


def _refuse_unknown(content: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key in content:
        if key not in known:
            raise UsageError(f"{place} has no part '{key}': {nearest(str(key), known)}")
