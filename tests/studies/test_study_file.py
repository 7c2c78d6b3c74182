"""Study files: what they say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.studies.study_file import read_study
from tests.studies.study_files import STUDY, study_of

SELECT = {"on": "validation", "over": "model.learning_rate", "values": [1e-3, 1e-2], "budget": 2, "seed": 42}


def test_an_axis_is_labels_or_values_of_a_key(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert study.name == study.title == "mine"
    assert study.axes["task"] == {"mrpc": {"data.task": "mrpc"}, "cola": {"data.task": "cola"}}
    assert study.axes["seed"]["42"] == {"seed_everything": 42}
    assert (study.report.rows, study.report.columns, study.report.over) == (("method",), "task", "seed")


def test_yaml_takes_on_for_true_and_knows_exponents(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "axes: {method: {a: {}}, seed: {'1': {}}}\n"
        "select: {on: validation, over: model.learning_rate, values: [1e-3, 1e-2], budget: 2, seed: 1}\n"
    )
    select = read_study(path).select
    assert select is not None
    assert (select.on, select.values) == ("validation", [1e-3, 1e-2])


def test_columns_are_metrics_unless_an_axis_is_named(tmp_path: Path) -> None:
    report = study_of(tmp_path, report={}).report
    assert (report.rows, report.columns) == (("method", "task"), "metrics")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"axis": {}}, "has no part 'axis': did you mean 'axes'?"),
        ({"axes": {"method": {}}}, "the axis method has no labels"),
        ({"axes": {"method": ["RED"]}}, "the axis method must be a mapping"),
        ({"axes": []}, "axes must be a mapping"),
        ({"skip": [{"metod": "RED"}]}, "no axis 'metod': did you mean 'method'?"),
        ({"skip": [{"method": ["RED", "LoRa"]}]}, "the axis method has no 'LoRa': did you mean 'LoRA'?"),
        ({"axes": {"method": {"key": "x", "values": "LoRA"}}}, "the axis method must be a list, such as [LoRA]"),
        ({"axes": {"seed": {"key": "x", "values": 42}}}, "the axis seed must be a list, such as [42], not '42'"),
        ({"skip": 3}, "skip must be a list, such as [3], not '3'"),
        ({"skip": [3]}, "skip must be a mapping, not '3'"),
        ({"report": {**STUDY["report"], "metrics": "loss"}}, "report.metrics must be a list, such as [loss]"),
        (
            {"report": {**STUDY["report"], "published": {"table": "table1_glue_roberta", "row": 3}}},
            "may name the axes method in braces",
        ),
        ({"report": {"rows": 5}}, "report names the axis '5': known"),
        ({"report": {**STUDY["report"], "best_of": [5, 15]}}, "report.best_of must be a mapping, not '[5, 15]'"),
        ({"report": {**STUDY["report"], "best_of": {"cola": ["a", "b"]}}}, "two numbers such as [5, 15]"),
        ({"report": {**STUDY["report"], "against": ["RED"]}}, "no label of a row: did you mean 'RED'?"),
        ({"select": {**SELECT, "on": "test"}}, "settings are chosen on validation alone"),
        ({"select": {**SELECT, "budget": 3}}, "must be a list of 3 values: the same for all"),
        ({"select": {**SELECT, "values": {"RED": [1, 2], "LoRA": [1]}}}, "of LoRA must be a list of 2 values"),
        ({"select": {**SELECT, "values": {"BED": [1, 2]}}}, "no axis has the label 'BED': did you mean 'RED'?"),
        ({"select": {**SELECT, "budgets": 2}}, "has no part 'budgets': did you mean 'budget'?"),
        ({"select": {"over": "x"}}, "select needs values"),
        ({"report": {"rows": "methods", "columns": "task"}}, "names the axis 'methods': did you mean 'method'?"),
        ({"report": {"rows": "method"}}, "the axis task must be one of"),
        ({"report": {"rows": ["method", "task"], "columns": "task"}}, "the axis task must be one of"),
        ({"report": {**STUDY["report"], "against": "LoRRA"}}, "no label of a row: did you mean 'LoRA'?"),
        ({"report": {**STUDY["report"], "best_of": {"cola": [15, 5]}}}, "two numbers such as [5, 15]"),
        ({"report": {**STUDY["report"], "best_of": {"coal": [5, 15]}}}, "'coal': did you mean 'cola'?"),
        ({"report": {**STUDY["report"], "published": {"table": "table1"}}}, "needs table and row"),
        ({"report": {**STUDY["report"], "published": {"table": "table1_glue", "row": "x"}}}, "'table1_glue_roberta'?"),
        (
            {"report": {**STUDY["report"], "published": {"table": "table1_glue_roberta", "row": "{metod}"}}},
            "may name the axes method in braces, not 'metod'",
        ),
    ],
    ids=str,
)
def test_bad_files_get_a_sentence(parts: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        study_of(tmp_path, **parts)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "model: {}", "a: 1\na: 2", "\x00"])
def test_other_files_are_no_studies(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"cannot be read|is not a study file"):
        read_study(path)
