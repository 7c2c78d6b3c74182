"""A setting is chosen by validation scores, before anything is tested."""

import json
from pathlib import Path
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.studies.cell_results import collect
from red_lightning.studies.cell_runs import State, StudyFolder
from red_lightning.studies.cells import Cell, expand, setting
from red_lightning.studies.setting_selection import choose, trials, with_choice
from red_lightning.studies.study_tables import markdown
from tests.studies.study_files import FILES, study_of

SELECT: dict[str, Any] = {
    "on": "validation",
    "over": "model.learning_rate",
    "values": [1e-3, 1e-2, 1e-1],
    "budget": 3,
    "seed": 42,
}


def done(score: float | None, mode: str = "max", monitor: str = "val_score") -> State:
    return State("done", result={"scores": {}, "selection": {"monitor": monitor, "mode": mode, "score": score}})


def scored(scores: dict[tuple[str, float], float]) -> Any:
    """The state of a trial by its method and value."""
    return lambda cell: done(scores.get((cell.labels["method"], cell.tried), 0.0))


def test_each_row_tries_as_many_and_never_tests(tmp_path: Path) -> None:
    study = study_of(tmp_path, select={**SELECT, "seed": [42, 43]})
    tried = trials(study, expand(study, FILES), FILES)
    assert len(tried) == 3 * 2 * 2 * 3
    assert tried[0].name == "FT-mrpc-42-learning_rate=0.001"
    for cell in tried:
        assert setting(cell.experiment, "model.learning_rate") == cell.tried
        assert "--run.test=false" in StudyFolder(Path("x")).command(cell)
        assert cell.labels["seed"] in ("42", "43")


def test_the_best_of_validation_is_run_with_all_seeds(tmp_path: Path) -> None:
    study = study_of(tmp_path, select=SELECT)
    cells = expand(study, FILES)
    tried = trials(study, cells, FILES)
    state = scored({("RED", 1e-2): 0.9, ("RED", 1e-1): 0.8, ("LoRA", 1e-3): 0.5, ("FT", 1e-1): 0.2})
    ready = with_choice(study, cells, tried, choose(study, tried, state), FILES)
    assert [cell.name for cell in ready] == [cell.name for cell in cells]
    chosen = {cell.labels["method"]: setting(cell.experiment, "model.learning_rate") for cell in ready}
    assert chosen == {"FT": 1e-1, "LoRA": 1e-3, "RED": 1e-2}
    assert all("--run.test=false" not in StudyFolder(Path("x")).command(cell) for cell in ready)
    begun = {cell.name: cell.trained for cell in ready if cell.trained}
    assert len(begun) == 3 * 2  # what was chosen with seed 42 is trained already
    assert begun["RED-cola-42"] == "RED-cola-42-learning_rate=0.01"


def test_the_smallest_loss_is_best_and_seeds_are_averaged(tmp_path: Path) -> None:
    study = study_of(tmp_path, select={**SELECT, "seed": [42, 43]}, set={"checkpoint.mode": "min"})
    tried = trials(study, expand(study, FILES), FILES)
    losses = {("42", 1e-3): 1.0, ("43", 1e-3): 5.0, ("42", 1e-2): 2.0, ("43", 1e-2): 2.0}
    choices = choose(study, tried, lambda cell: done(losses.get((cell.labels["seed"], cell.tried), 9.0), "min"))
    assert {choice.value for choice in choices.values()} == {1e-2}
    assert next(iter(choices.values())).scores == {"0.001": 3.0, "0.01": 2.0, "0.1": 9.0}


def test_a_fallback_chooses_by_its_own_mode(tmp_path: Path) -> None:
    study = study_of(tmp_path, select=SELECT)
    tried = trials(study, expand(study, FILES), FILES)
    losses = {1e-3: 3.0, 1e-2: 1.0, 1e-1: 2.0}
    choices = choose(study, tried, lambda cell: done(losses[cell.tried], "min", "val_loss"))
    assert {(choice.value, choice.monitors) for choice in choices.values()} == {(1e-2, ("val_loss",))}


def test_scores_of_two_metrics_are_not_compared(tmp_path: Path) -> None:
    study = study_of(tmp_path, select=SELECT)
    cells = expand(study, FILES)
    tried = trials(study, cells, FILES)

    def state(cell: Cell) -> State:
        replaced = cell.labels["method"] == "RED" and cell.tried == 1e-2
        return done(0.5, "min", "val_loss") if replaced else done(0.4)

    choices = choose(study, tried, state)
    opened = {group: choice for group, choice in choices.items() if choice.value is None}
    assert {dict(group)["method"] for group in opened} == {"RED"}
    for choice in opened.values():
        assert choice.open == "its runs were scored by val_loss and val_score, which cannot be compared"
        assert choice.way.startswith("delete the runs that were scored by val_loss or by val_score")
    text = markdown(collect(study, cells, lambda cell: State("waiting")), tmp_path, choices.values())
    assert "| open (its runs were scored by val_loss and val_score, which cannot be compared) |" in text


def test_nothing_is_chosen_before_all_have_ended(tmp_path: Path) -> None:
    study = study_of(tmp_path, select=SELECT)
    cells = expand(study, FILES)
    tried = trials(study, cells, FILES)

    def state(cell: Cell) -> State:
        if cell.labels["method"] == "RED" and cell.tried == 1e-1:
            return State("waiting")
        return State("failed", "diverged") if cell.tried == 1e-2 else done(0.5)

    choices = choose(study, tried, state)
    for choice in choices.values():
        assert choice.scores["0.01"] is None  # it was tried, and lost
        assert choice.value == (None if choice.labels["method"] == "RED" else 1e-3)
        assert choice.missing == (choice.labels["method"] == "RED")
    ready = with_choice(study, cells, tried, choices, FILES)
    assert {cell.labels["method"] for cell in ready} == {"FT", "LoRA"}
    assert all(c.value is None for c in choose(study, tried, lambda _: State("failed", "x")).values())
    killed = choose(study, tried, lambda c: State("failed", "x", killed=True) if c.tried == 1e-2 else done(0.5))
    assert {(c.value, c.missing) for c in killed.values()} == {(None, 1)}  # nothing is known of it


@pytest.mark.parametrize(
    ("over", "values"),
    [("model.schedule", ["linear", "constant"]), ("model.method.sites", [["ffn"], ["ffn", "query"]])],
)
def test_any_setting_can_be_chosen(over: str, values: list[Any], tmp_path: Path) -> None:
    axes = {"method": {"RED": {"model.method": "RED"}}, "seed": {"42": {}}}
    select = {**SELECT, "over": over, "values": values, "budget": 2}
    study = study_of(tmp_path, axes=axes, report={"rows": "method"}, select=select)
    cells = expand(study, FILES)
    tried = trials(study, cells, FILES)
    choices = choose(study, tried, lambda cell: done(float(cell.tried == values[1])))
    (cell,) = with_choice(study, cells, tried, choices, FILES)
    assert setting(cell.experiment, over) == values[1]
    (choice,) = choices.values()
    text = markdown(collect(study, cells, lambda _: State("waiting")), tmp_path, [choice])
    shown = [value if isinstance(value, str) else json.dumps(value) for value in values]
    assert f"| RED | {shown[1]} | val_score | {shown[0]}: 0.0000; {shown[1]}: 1.0000 |" in text


def test_values_may_belong_to_a_label(tmp_path: Path) -> None:
    values = {"FT": [1, 2], "LoRA": [3, 4], "RED": [5, 6]}
    study = study_of(tmp_path, select={**SELECT, "values": values, "budget": 2})
    tried = trials(study, expand(study, FILES), FILES)
    assert {(cell.labels["method"], cell.tried) for cell in tried} == {(m, v) for m, of in values.items() for v in of}
    study = study_of(tmp_path, select={**SELECT, "values": {"RED": [5, 6]}, "budget": 2})
    with pytest.raises(UsageError, match="must have the values of one label of FT, mrpc, 42, not of 0"):
        trials(study, expand(study, FILES), FILES)


def test_the_seed_must_be_one_of_the_study(tmp_path: Path) -> None:
    study = study_of(tmp_path, select={**SELECT, "seed": 41})
    with pytest.raises(UsageError, match="the axis seed has no '41': did you mean '44'"):
        trials(study, expand(study, FILES), FILES)
