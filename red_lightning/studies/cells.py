"""The cells of a study: one run each, with resolved settings."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from red_lightning.errors import UsageError
from red_lightning.paper.hyperparameters import method_options, register_resolvers, unresolved
from red_lightning.studies.study_file import Labels, Study, labels_of

SECTIONS = ("seed_everything", "model", "data", "trainer", "checkpoint", "finite_steps")
"""What a result depends on; where a run writes and what it prints are not in it."""

SEED = "seed_everything"
OPEN = "CHOSEN"
"""Stands for a setting that the validation split has not chosen yet."""


@dataclass(frozen=True)
class Files:
    """Where the files are that a study refers to by name.

    Attributes:
        experiment: An experiment's name -> how ``--config`` names it, and its text with what it includes.
        part: A part's name, such as ``methods/red.yaml`` -> its text.
    """

    experiment: Callable[[str], tuple[str, str]]
    part: Callable[[str], str]


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        name: Its folder's name.
        labels: Its label of each axis.
        config: How ``--config`` names its experiment.
        settings: What it changes there, in the order of the command line.
        experiment: The whole experiment, resolved.
        tried: The value of the setting that is chosen, in a run that is there to choose it; such a run never tests.
        trained: The name of such a run with the very same settings: what it trained is tested, and not trained again.
    """

    name: str
    labels: Labels
    config: str
    settings: dict[str, Any]
    experiment: dict[str, Any]
    tried: Any = None
    trained: str | None = None

    @property
    def digest(self) -> str:
        """A hash of all that the result depends on: another one makes a finished run stale."""
        relevant = {key: self.experiment.get(key) for key in SECTIONS}
        relevant["trainer"] = {k: v for k, v in (relevant["trainer"] or {}).items() if k != "logger"}
        relevant["data"] = _without_workers(relevant["data"])
        text = json.dumps([relevant, self.tried], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def options(self) -> list[str]:
        """The options of ``fit`` that make this run what it is."""
        return [f"--config={self.config}", *(f"--{key}={written(value)}" for key, value in self.settings.items())]


def expand(study: Study, files: Files, changes: Mapping[str, Any] | None = None) -> list[Cell]:
    """Make the cells of a study; a setting that is still to be chosen is :data:`OPEN`.

    Args:
        study: It.
        files: Finds the experiments.
        changes: Settings of every run that come last.

    Raises:
        UsageError: A setting cannot be resolved, no experiment is given, no cell is left, or two would share a folder.
    """
    if study.select is not None:
        changes = {**(changes or {}), study.select.over: OPEN}
    every = [dict(zip(study.axes, labels, strict=True)) for labels in itertools.product(*study.axes.values())]
    cells = [make_cell(study, labels, files, changes) for labels in every if not _is_skipped(study, labels)]
    if not cells:
        raise UsageError(f"{study.path}: skip removes every cell; leave some")
    refuse_same_names(cells)
    return cells


def make_cell(
    study: Study, labels: Labels, files: Files, changes: Mapping[str, Any] | None = None, *, name: str | None = None
) -> Cell:
    """Make one cell.

    Args:
        study: The study.
        labels: Its label of each axis.
        files: Finds the experiment.
        changes: Settings that come last.
        name: Its folder's name; None makes one of the labels.
    """
    settings = dict(study.settings)
    for axis, label in labels.items():
        settings.update(study.axes[axis][label])
    settings.update(changes or {})
    config, recipe = settings.pop("config", study.config), settings.pop("recipe", None)
    if config is None:
        raise UsageError(f"{study.path}: no experiment is given for {_shown(labels)}; add config: NAME")
    if recipe is not None and "model.method" in settings:
        options = method_options(recipe, str(settings["model.method"]).rsplit(".", 1)[-1])
        settings = {**{f"model.method.{key}": value for key, value in options.items()}, **settings}
    settings = {key: settings[key] for key in sorted(settings, key=lambda key: key.count("."))}  # a class, then its own
    shown, text = files.experiment(str(config))
    experiment = resolve(text, settings, files, f"{study.path}: {_shown(labels)}")
    return Cell(name or folder_name(labels.values()), labels, shown, settings, experiment)


def resolve(text: str, settings: Mapping[str, Any], files: Files, place: str) -> dict[str, Any]:
    """An experiment with some settings changed, and all that refers to others resolved.

    Args:
        text: The experiment's YAML, whole.
        settings: Full name, as on the command line -> value.
        files: Finds the parts that a value names.
        place: What a complaint begins with.

    Raises:
        UsageError: A value refers to what does not exist, or the paper gives none.
    """
    alike = {key: value for key, value in settings.items() if key != SEED or f"${{{SEED}" in text}
    try:
        experiment = deepcopy(_resolved(text, json.dumps(alike), files))  # most cells differ in nothing but the seed
    except OmegaConfBaseException as error:
        raise UsageError(f"{place}: {unresolved(error)}") from error
    return {**experiment, **({SEED: settings[SEED]} if SEED in settings else {})}


@cache
def _resolved(text: str, settings: str, files: Files) -> Any:
    register_resolvers()
    experiment = deepcopy(_parsed(text))
    for key, value in json.loads(settings).items():
        if isinstance(value, str) and value.endswith(".yaml"):
            value = deepcopy(_parsed(files.part(value)))
        _set(experiment, key, value)
    return OmegaConf.to_container(OmegaConf.create(experiment), resolve=True)


@cache
def _parsed(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(text))


def setting(experiment: Mapping[str, Any], key: str) -> Any:
    """A setting of an experiment by its full name, such as ``model.learning_rate``; None where it has none."""
    node: Any = experiment
    for part in key.split("."):
        options = (node.get("init_args") or {}) if isinstance(node, dict) and "class_path" in node else node
        node = options.get(part) if isinstance(options, dict) else None
    return node


def pick(cells: Iterable[Cell], axes: Mapping[str, Mapping[str, Any]], only: Sequence[str]) -> list[Cell]:
    """The cells that ``--only`` means.

    Args:
        cells: Those of the study.
        axes: Its axes.
        only: Such as ``method=RED,LoRA`` and ``task=mrpc``; none for all.

    Raises:
        UsageError: An axis or a label is unknown, or no cell is left.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        axis, equals, labels = text.partition("=")
        if not equals:
            raise UsageError(f"--only takes AXIS=LABEL,LABEL, not '{text}'")
        wanted.setdefault(axis, []).extend(labels_of(axes, axis, labels.split(",")))
    picked = [cell for cell in cells if all(cell.labels[axis] in labels for axis, labels in wanted.items())]
    if not picked:
        raise UsageError(f"the study has no cell with {' '.join(only)}: those combinations are skipped")
    return picked


def folder_name(labels: Iterable[str]) -> str:
    """A folder's name made of labels."""
    return "-".join(re.sub(r"[^\w.+=-]+", "_", label).strip("_-") for label in labels)


def refuse_same_names(cells: Iterable[Cell]) -> None:
    """Refuse two cells that would write into one folder."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.name in seen:
            raise UsageError(f"{_shown(seen[cell.name].labels)} and {_shown(cell.labels)} are both called {cell.name}")
        seen[cell.name] = cell


def _is_skipped(study: Study, labels: Labels) -> bool:
    return any(all(labels[axis] in of for axis, of in entry.items()) for entry in study.skip)


def _inside(node: dict[str, Any]) -> dict[str, Any]:
    """The settings of a section: those of a class are its ``init_args``."""
    if "class_path" not in node:
        return node
    if node.get("init_args") is None:
        node["init_args"] = {}
    return node["init_args"]


def _without_workers(data: Any) -> Any:
    """The settings of the data without the one that changes nothing but the speed."""
    if not isinstance(data, dict):
        return data
    return {key: _without_workers(value) for key, value in data.items() if key != "num_workers"}


def _set(experiment: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    node = experiment
    for section in sections:
        inner = _inside(node).get(section)
        if not isinstance(inner, dict):
            _inside(node)[section] = inner = {"class_path": inner} if isinstance(inner, str) else {}
        node = inner
    place = _inside(node)
    is_class = last == "method" or (isinstance(place.get(last), dict) and "class_path" in place[last])
    place[last] = {"class_path": value} if is_class and isinstance(value, str) else value


def written(value: Any) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _shown(labels: Labels) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in labels.items())
