"""The cells of a study: their settings, commands and digests."""

from dataclasses import replace
from pathlib import Path

import pytest

from red_lightning.errors import UsageError
from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.cells import Files, expand, folder_name, pick, setting
from tests.studies.study_files import EXPERIMENT, FILES, cells_of, study_of


def test_cells_are_the_product_without_what_is_skipped(tmp_path: Path) -> None:
    study = study_of(tmp_path, skip=[{"method": "FT", "task": "cola"}, {"method": "LoRA", "seed": [42, 43]}])
    names = list(cells_of(study))
    assert len(names) == 3 * 2 * 3 - 3 - 4
    with pytest.raises(UsageError, match="skip removes every cell"):
        cells_of(study_of(tmp_path, skip=[{"seed": [42, 43, 44]}]))
    assert names[:4] == ["FT-mrpc-42", "FT-mrpc-43", "FT-mrpc-44", "LoRA-mrpc-44"]


def test_settings_follow_the_papers_recipe(tmp_path: Path) -> None:
    cells = cells_of(study_of(tmp_path))
    lora = cells["LoRA-cola-43"]
    assert setting(lora.experiment, "model.method") == {
        "class_path": "LoRA",
        "init_args": {"sites": ["query", "value"], "rank": 8, "alpha": 8},
    }
    assert lora.experiment["seed_everything"] == 43
    assert setting(lora.experiment, "data.task") == "cola"
    rates = {name: setting(cell.experiment, "model.learning_rate") for name, cell in cells.items() if "42" in name}
    assert rates["LoRA-cola-42"] == 4e-4  # Table 9
    assert (rates["RED-mrpc-42"], rates["FT-mrpc-42"]) == (5e-3, 1e-5)


def test_a_labels_own_option_beats_the_recipes(tmp_path: Path) -> None:
    axes = {
        "method": {"x": {"recipe": "roberta_base", "model.method.rank": 1, "model.method": "LoRA"}},
        "seed": {"1": {}},
    }
    (cell,) = cells_of(study_of(tmp_path, axes=axes, report={"rows": "method"})).values()
    assert setting(cell.experiment, "model.method.rank") == 1
    assert setting(cell.experiment, "model.method.alpha") == 8
    assert next(iter(cell.settings)) == "model.method"  # the class comes before its options


def test_a_part_stands_for_a_method(tmp_path: Path) -> None:
    axes = {"method": {"x": {"model.method": "methods/lora.yaml", "model.method.alpha": 2}}, "seed": {"1": {}}}
    (cell,) = cells_of(study_of(tmp_path, axes=axes, report={"rows": "method"})).values()
    assert setting(cell.experiment, "model.method")["init_args"] == {"rank": 3, "alpha": 2}


def test_the_command_line_says_all(tmp_path: Path) -> None:
    cell = cells_of(study_of(tmp_path, set={"trainer.max_epochs": 2, "model.head": {"dropout": 0.1}}))["LoRA-mrpc-42"]
    folder = StudyFolder(Path("s"))
    assert folder.command(cell)[1:] == [
        *("-m", "red_lightning", "fit", "--config=base", "--seed_everything=42", "--trainer.max_epochs=2"),
        *('--model.head={"dropout": 0.1}', "--model.method=LoRA", "--data.task=mrpc"),
        *('--model.method.sites=["query", "value"]', "--model.method.rank=8", "--model.method.alpha=8"),
        *("--run.folder=s/runs", "--run.name=LoRA-mrpc-42", "--ckpt_path=auto"),
    ]
    assert "--run.test=false" in folder.command(replace(cell, tried=0.1))


def test_the_digest_follows_what_the_result_depends_on(tmp_path: Path) -> None:
    def digest(text: str = EXPERIMENT, **parts: object) -> str:
        study = study_of(tmp_path, **parts)
        cells = expand(study, Files(lambda name: (name, text), FILES.part))
        return next(cell for cell in cells if cell.name == "RED-mrpc-42").digest

    same = digest()
    assert digest(title="another", set={"run.samples": 1}) == same
    assert digest(EXPERIMENT.replace("logger: false", "logger: true")) == same
    assert digest(set={"data.num_workers": 2}) == same
    assert digest(EXPERIMENT.replace("FacebookAI/roberta-base", "x")) != same
    assert digest(set={"trainer.max_epochs": 4}) != same
    assert digest(set={"model.learning_rate": 5e-3}) == same  # Table 9's own
    assert digest(set={"model.learning_rate": 6e-3}) != same


def test_only_picks_cells(tmp_path: Path) -> None:
    study = study_of(tmp_path, skip=[{"method": "FT", "task": "cola"}])
    cells = list(cells_of(study).values())
    picked = pick(cells, study.axes, ["method=RED,LoRA", "seed=42"])
    assert [cell.name for cell in picked] == ["LoRA-mrpc-42", "LoRA-cola-42", "RED-mrpc-42", "RED-cola-42"]
    assert len(pick(cells, study.axes, ["method=RED", "method=LoRA"])) == 2 * 2 * 3
    for only, said in {
        "metod=RED": "no axis 'metod': did you mean 'method'?",
        "method=RED,LoRRA": "the axis method has no 'LoRRA': did you mean 'LoRA'?",
        "RED": "--only takes AXIS=LABEL,LABEL, not 'RED'",
    }.items():
        with pytest.raises(UsageError) as error:
            pick(cells, study.axes, [only])
        assert said in str(error.value)
    with pytest.raises(UsageError, match="no cell with method=FT task=cola"):
        pick(cells, study.axes, ["method=FT", "task=cola"])


def test_what_cannot_be_resolved_names_the_cell(tmp_path: Path) -> None:
    axes = {"method": {"IA3": {"model.method": "IA3"}}, "seed": {"42": {}}}
    with pytest.raises(UsageError, match=r"method IA3, seed 42: the paper gives no learning_rate for IA3"):
        cells_of(study_of(tmp_path, axes=axes, report={"rows": "method"}))
    with pytest.raises(UsageError, match="no experiment is given for method FT, task mrpc, seed 42; add config: NAME"):
        cells_of(study_of(tmp_path, config=None))


def test_cells_never_share_a_folder(tmp_path: Path) -> None:
    assert folder_name(["LoRA (rank 1)", "-Bias Vector", "a/b", "1e-05"]) == "LoRA_rank_1-Bias_Vector-a_b-1e-05"
    axes = {"method": {"a b": {}, "a_b": {}}, "seed": {"1": {}}}
    with pytest.raises(UsageError, match="method a b, seed 1 and method a_b, seed 1 are both called a_b-1"):
        cells_of(study_of(tmp_path, axes=axes, report={"rows": "method"}))


def test_to_look_up_a_setting_changes_no_digest(tmp_path: Path) -> None:
    """A method without options has no ``init_args``; one that got them by being looked at made finished runs stale."""
    cell = cells_of(study_of(tmp_path))["FT-mrpc-42"]
    before = cell.digest
    assert setting(cell.experiment, "model.method.rank") is None
    assert cell.digest == before
