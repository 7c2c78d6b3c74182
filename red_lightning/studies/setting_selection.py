"""Select a setting on the validation split, with the same number of runs for every row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from red_lightning.errors import UsageError
from red_lightning.studies.cell_runs import State
from red_lightning.studies.cells import Cell, Files, folder_name, make_cell, refuse_same_names, setting, written
from red_lightning.studies.study_file import Labels, Study, labels_of

Group = tuple[tuple[str, str], ...]
"""The labels of a cell but for those of the axis that is averaged over."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for one group of cells.

    Attributes:
        labels: The labels that they share.
        scores: Value, as written on the command line -> mean validation score; None if all its runs failed.
        monitors: The validation metric; several, if a fallback has scored some of the runs.
        value: The best; None while runs are missing, if all failed, or if their scores cannot be compared.
        missing: Number of runs that have not ended yet.
    """

    labels: Labels
    scores: dict[str, float | None]
    monitors: tuple[str, ...]
    value: Any
    missing: int

    @property
    def open(self) -> str:
        """Why nothing is chosen."""
        if self.missing:
            return f"{self.missing} runs have not ended"
        if len(self.monitors) > 1:
            return f"its runs were scored by {' and '.join(self.monitors)}, which cannot be compared"
        return "no run has a validation score"

    @property
    def way(self) -> str:
        """What to do about it, once all runs have ended."""
        if len(self.monitors) > 1:
            return f"delete the runs that were scored by {' or by '.join(self.monitors)}, and run the study again"
        return "not every run that chooses has validated; let them train longer, or validate more often"


def trials(study: Study, cells: Iterable[Cell], files: Files, changes: Mapping[str, Any] | None = None) -> list[Cell]:
    """The runs by which a setting is chosen for some cells.

    Args:
        study: Their study; it has ``select``.
        cells: Those whose setting is to be chosen.
        files: Finds the experiments.
        changes: Settings of every run that come last.
    """
    assert study.select is not None
    seeds = labels_of(study.axes, study.report.over, study.select.seed)
    made = []
    for group in dict.fromkeys(group_of(study, cell) for cell in cells):
        for seed in seeds:
            labels = {**dict(group), study.report.over: seed}
            labels = {axis: labels[axis] for axis in study.axes}
            for value in _values(study, labels):
                name = folder_name([*labels.values(), f"{study.select.over.rsplit('.', 1)[-1]}={written(value)}"])
                tried = {**(changes or {}), study.select.over: value}
                made.append(replace(make_cell(study, labels, files, tried, name=name), tried=value))
    refuse_same_names(made)
    return made


def choose(study: Study, tried: Sequence[Cell], state: Callable[[Cell], State]) -> dict[Group, Choice]:
    """Choose by what the runs have found so far.

    A value all of whose runs failed has lost: it was tried. A run that was killed has tried nothing: it is missing. Of
    equally good values the first of the file wins.

    Args:
        study: The study.
        tried: Its :func:`trials`.
        state: What became of one.
    """
    groups: dict[Group, list[Cell]] = {}
    for cell in tried:
        groups.setdefault(group_of(study, cell), []).append(cell)
    return {group: _choice(dict(group), cells, [state(cell) for cell in cells]) for group, cells in groups.items()}


def with_choice(
    study: Study,
    cells: Iterable[Cell],
    tried: Sequence[Cell],
    choices: Mapping[Group, Choice],
    files: Files,
    changes: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """The cells whose setting has been chosen, with it.

    Args:
        study: Their study.
        cells: All cells.
        tried: Their :func:`trials`.
        choices: Those of :func:`choose`.
        files: Finds the experiments.
        changes: Settings of every run that come last.
    """
    assert study.select is not None
    ready = []
    for cell in cells:
        choice = choices[group_of(study, cell)]
        if choice.value is not None:
            chosen = {**(changes or {}), study.select.over: choice.value}
            trained = next((t.name for t in tried if t.labels == cell.labels and t.tried == choice.value), None)
            ready.append(replace(make_cell(study, cell.labels, files, chosen), trained=trained))
    return ready


def group_of(study: Study, cell: Cell) -> Group:
    """The group to which a cell belongs."""
    return tuple((axis, label) for axis, label in cell.labels.items() if axis != study.report.over)


def _values(study: Study, labels: Labels) -> list[Any]:
    assert study.select is not None
    values = study.select.values
    if isinstance(values, list):
        return values
    found = [of for label, of in values.items() if str(label) in labels.values()]
    if len(found) != 1:
        row = ", ".join(labels.values())
        raise UsageError(f"{study.path}: select.values must have the values of one label of {row}, not of {len(found)}")
    return found[0]


def _choice(labels: Labels, cells: Sequence[Cell], states: Sequence[State]) -> Choice:
    values = {written(cell.tried): cell.tried for cell in cells}
    found: dict[str, list[float]] = {value: [] for value in values}
    criteria: set[tuple[str, str]] = set()  # a benchmark's fallback may have scored a run
    for cell, state in zip(cells, states, strict=True):
        selection: dict[str, Any] = state.result["selection"] if state.result else {"score": None}
        if selection["score"] is not None:
            found[written(cell.tried)].append(selection["score"])
            criteria.add((selection["monitor"], selection["mode"]))
    scores = {value: fmean(of) if of else None for value, of in found.items()}
    missing = sum(state.kind not in ("done", "failed") or state.killed for state in states)
    sign = 1 if {mode for _, mode in criteria} == {"max"} else -1
    measured = {value: sign * score for value, score in scores.items() if score is not None}
    comparable = measured and not missing and len(criteria) == 1
    best = values[max(measured, key=measured.__getitem__)] if comparable else None
    monitors = sorted({monitor for monitor, _ in criteria}) or [_monitor_of(cells[0])]
    return Choice(labels, scores, tuple(monitors), best, missing)


def _monitor_of(cell: Cell) -> str:
    """The metric that the settings name."""
    return setting(cell.experiment, "checkpoint.monitor") or "val_loss"
