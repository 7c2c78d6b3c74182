"""Which cells one command computes together, and its command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from red_lightning.reproduction.cells import Cell
from red_lightning.reproduction.groups import grouped
from red_lightning.reproduction.runs import StudyFolder
from tests.reproduction.study_files import cells_of, finish, study_of


def names(cells: dict[str, Cell], size: int) -> list[list[str]]:
    return [[cell.name for cell in group] for group in grouped(list(cells.values()), size)]


def cells_with(tmp_path: Path, axis: dict[str, dict[str, Any]], **settings: Any) -> dict[str, Cell]:
    """Cells of RED with an axis of one's own and two seeds."""
    axes = {"x": axis, "seed": {"key": "seed_everything", "values": [1, 2]}}
    settings = {"model.learning_rate": 1e-3, **settings}
    return cells_of(study_of(tmp_path, axes=axes, report={"rows": "x"}, set=settings))


def test_only_red_is_grouped_by_size(tmp_path: Path) -> None:
    cells = cells_of(study_of(tmp_path))
    every = names(cells, 4)
    assert every[:12] == [[name] for name in cells if "RED" not in name]
    red = [name for name in cells if "RED" in name]
    assert every[12:] == [red[:4], red[4:]]
    assert names(cells, 1) == [[name] for name in cells]


@pytest.mark.parametrize(
    ("key", "values", "together"),
    [
        ("model.learning_rate", [1e-3, 1e-2], True),
        ("model.weight_decay", [0.0, 0.1], True),
        ("data.task", ["mrpc", "cola"], True),
        ("data", ["GLUE", "LabeledTexts"], True),
        ("trainer.max_epochs", [1, 2], True),
        ("model.backbone", ["a", "b"], False),
        ("model.backbone_options", [{"revision": "a"}, {"revision": "b"}], False),
        ("model.method.layers", [[0], [1]], False),
        ("trainer.precision", ["bf16-mixed", "32-true"], False),
        ("config", ["one", "another"], False),
    ],
)
def test_what_cells_of_a_group_may_differ_in(key: str, values: list[Any], together: bool, tmp_path: Path) -> None:
    groups = names(cells_with(tmp_path, {"a": {key: values[0]}, "b": {key: values[1]}}), 4)
    assert groups == ([["a-1", "a-2", "b-1", "b-2"]] if together else [["a-1", "a-2"], ["b-1", "b-2"]])


def test_what_a_setting_makes_of_another_divides_a_group(tmp_path: Path) -> None:
    precision = {"trainer.precision": "${data.init_args.task}"}
    tasks = {"a": {"data.task": "mrpc"}, "b": {"data.task": "cola"}}
    assert names(cells_with(tmp_path, tasks, **precision), 4) == [["a-1", "a-2"], ["b-1", "b-2"]]


@pytest.mark.parametrize("trainer", [{"trainer.devices": 2}, {"trainer.strategy": "fsdp"}, {"trainer.num_nodes": 2}])
def test_several_devices_share_nothing(trainer: dict[str, Any], tmp_path: Path) -> None:
    assert names(cells_with(tmp_path, {"a": trainer}), 4) == [["a-1"], ["a-2"]]
    assert names(cells_with(tmp_path, {"a": {"trainer.devices": 1}}), 4) == [["a-1", "a-2"]]


def test_the_command_line_of_one_cell_says_all(tmp_path: Path) -> None:
    cell = cells_of(study_of(tmp_path, set={"trainer.max_epochs": 2, "model.head": {"dropout": 0.1}}))["LoRA-mrpc-42"]
    folder = StudyFolder(Path("s"))
    assert folder.command([cell])[1:] == [
        *("-m", "red_lightning", "fit", "--config=base", "--seed_everything=42", "--trainer.max_epochs=2"),
        *('--model.head={"dropout": 0.1}', "--model.method=LoRA", "--data.task=mrpc"),
        *('--model.method.sites=["query", "value"]', "--model.method.rank=8", "--model.method.alpha=8"),
        *("--run.folder=s/runs", "--run.name=LoRA-mrpc-42", "--ckpt_path=auto"),
    ]
    assert "--run.test=false" in folder.command([replace(cell, tried=0.1)])


def test_the_command_line_of_several_says_what_each_has_of_its_own(tmp_path: Path) -> None:
    """A setting under a class that differs goes with it: it would be given before its class otherwise."""
    tasks = {"a": {"data": "GLUE", "data.x": 3}, "b": {"data": "LabeledTexts", "data.x": 3}}
    cells = cells_with(tmp_path, tasks, **{"model.method": "RED", "trainer.max_epochs": 2})
    folder = StudyFolder(tmp_path / "s")
    finish(folder, cells["b-2"])
    command = folder.command([cells["a-1"], replace(cells["b-2"], tried=0.1)])
    *shared, replicas, place, name, overwrite = command[1:]
    assert shared[:5] == ["-m", "red_lightning", "fit", "--config=base", "--model.learning_rate=0.001"]
    assert shared[5:] == ["--model.method=RED", "--trainer.max_epochs=2"]
    assert [place, name, overwrite] == [f"--run.folder={tmp_path}/s/together", "--run.name=a-1", "--run.overwrite=true"]
    assert replicas.startswith("--model.method.replicas=")
    first, second = json.loads(replicas.partition("=")[2])
    runs, logs = f"{tmp_path}/s/runs", f"{tmp_path}/s/cells"
    assert first == {
        **{"data": "GLUE", "seed_everything": 1, "data.x": 3},
        **{"run.folder": runs, "run.name": "a-1", "ckpt_path": "auto", "log": f"{logs}/a-1.log"},
    }
    assert second == {
        **{"data": "LabeledTexts", "seed_everything": 2, "data.x": 3, "run.test": False},
        **{"run.folder": runs, "run.name": "b-2", "run.overwrite": True, "log": f"{logs}/b-2.log"},
    }
