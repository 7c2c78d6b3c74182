"""The study files that ship: the paper's tables, cell by cell."""

from functools import cache
from pathlib import Path

import pytest

import red_lightning.methods
from red_lightning.cli import configs
from red_lightning.cli.study_plan import files_beside
from red_lightning.paper.hyperparameters import recipes
from red_lightning.paper.published import published_row
from red_lightning.studies.cells import OPEN, Cell, expand, setting
from red_lightning.studies.setting_selection import trials
from red_lightning.studies.study_file import Study, read_study

RUNS = {  # cells, and runs that choose
    "table1": (11 * 8 * 5, 0),
    "table2": (13 * 3, 0),
    "table3": (6 * 8 * 3, 6 * 8 * 3),
    "table5": (4 * 3, 0),
    "table6": (3 * 3 * 5, 0),
    "table7": (3 * 3 * 5, 0),
    "llama": (3, 0),
    "few_shot": (4 * 4 * 4 * 5, 4 * 4 * 4 * 3),
    "own_texts": (5 * 3, 5 * 3),
    "minilm": (16 * 2 * 3, 16 * 2 * 3),
}


@cache
def shipped(name: str) -> tuple[Study, list[Cell]]:
    path = configs.studies()[name]
    study = read_study(path)
    return study, expand(study, files_beside(path))


def test_every_study_is_counted() -> None:
    assert set(RUNS) == set(configs.studies())


@pytest.mark.parametrize("name", RUNS)
def test_every_cell_resolves(name: str) -> None:
    study, cells = shipped(name)
    tried = trials(study, cells, files_beside(study.path)) if study.select else []
    assert (len(cells), len(tried)) == RUNS[name]
    for cell in [*cells, *tried]:
        rate = setting(cell.experiment, "model.learning_rate")
        assert rate == OPEN if study.select and cell.tried is None else 0 < rate < 1
        method = setting(cell.experiment, "model.method")
        klass = getattr(red_lightning.methods, method["class_path"].rsplit(".", 1)[-1])
        klass(**(method.get("init_args") or {}))  # its options exist


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("table")])
def test_every_row_is_published(name: str) -> None:
    study, cells = shipped(name)
    assert study.report.published is not None
    rows = {study.report.published["row"].format(**cell.labels) for cell in cells}
    for row in rows:
        found = published_row(study.report.published["table"], row)
        columns = study.report.metrics or list(study.axes[study.report.columns])
        assert set(found.scores) - {"avg"} == {column.lower().replace("_", "") for column in columns}
        if "std" in study.report.published:
            assert published_row(study.report.published["std"], row).deviations
    if name in ("table1", "table2", "table3", "table5"):
        assert len(rows) == len(published_rows(study.report.published["table"]))


def published_rows(table: str) -> list[object]:
    from red_lightning.paper.published import results

    return list(results()[table])


@pytest.mark.parametrize("name", RUNS)
def test_nothing_of_the_recipes_is_repeated(name: str) -> None:
    """Learning rates of the paper live in ``hyperparameters.yaml`` alone."""
    text = configs.studies()[name].read_text(encoding="utf-8")
    assert text.count("learning_rate") == text.count("over: model.learning_rate")
    assert text.startswith("# ")
    for line in text.splitlines():
        assert len(line) <= 120
    recipe = {line.split("recipe: ")[1].strip("}") for line in text.splitlines() if "recipe: " in line}
    assert recipe <= set(recipes())


def test_the_example_has_ten_lines() -> None:
    text = configs.studies()["own_texts"].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 10
    assert Path(configs.folder() / "own_texts.yaml").is_file()
