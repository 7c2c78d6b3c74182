"""A study file: a base experiment, axes over its settings, and its table.

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
see ``hyperparameters.yaml``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from red_lightning.errors import UsageError, nearest
from red_lightning.studies.study_checks import labels_of, listed, mapping, refuse_unknown
from red_lightning.studies.table_layout import Report, read_report

Labels = dict[str, str]
"""Axis -> label."""


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
    content = mapping(content, str(path))
    refuse_unknown(content, known, str(path))
    axes = _axes(content["axes"], path)
    return Study(
        path,
        str(content.get("title") or path.stem),
        content.get("config"),
        mapping(content.get("set") or {}, f"{path}: set"),
        axes,
        tuple(_skipped(entry, axes, path) for entry in listed(content.get("skip") or [], f"{path}: skip")),
        _select(content["select"], axes, path) if content.get("select") else None,
        read_report(content.get("report") or {}, axes, path),
    )


def _axes(content: Any, path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    axes = {}
    for axis, labels in mapping(content, f"{path}: axes").items():
        place = f"{path}: the axis {axis}"
        labels = mapping(labels, place)
        if {*labels} == {"key", "values"}:
            labels = {str(value): {str(labels["key"]): value} for value in listed(labels["values"], place)}
        axes[axis] = {str(name): mapping(of or {}, f"{place}, {name}") for name, of in labels.items()}
        if not axes[axis]:
            raise UsageError(f"{place} has no labels")
    return axes


def _skipped(entry: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, list[str]]:
    return {axis: labels_of(axes, axis, labels) for axis, labels in mapping(entry, f"{path}: skip").items()}


def _select(content: Any, axes: Mapping[str, Mapping[str, Any]], path: Path) -> Select:
    names = [part.name for part in fields(Select)]
    content = mapping(content, f"{path}: select")
    refuse_unknown(content, names, f"{path}: select")
    for name in ("over", "values", "budget", "seed"):
        if content.get(name) is None:
            raise UsageError(f"{path}: select needs {name}")
    select = Select(**{**content, "over": str(content["over"])})
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
