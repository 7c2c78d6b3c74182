"""The experiments that ship: each parses, each can be listed, found by name and copied whole."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from red_lightning.cli import configs
from red_lightning.cli.study_plan import files_beside
from red_lightning.errors import UsageError
from red_lightning.studies.cells import expand, setting
from red_lightning.studies.study_file import read_study
from tests.cli.conftest import CLI

EXPERIMENTS = sorted(configs.experiments())
FOLDER = configs.folder()
STUDIES = sorted(configs.studies())
PARTS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*.yaml") if path.stem not in STUDIES)
LOCAL = [name for name in EXPERIMENTS if "backbone: quickstart" in configs.experiments()[name].read_text()]


def printed(cli: CLI, *args: str) -> dict[str, object]:
    """The configuration as ``fit`` understands it."""
    shown = cli("fit", *args, "--print_config")
    assert shown.status == 0, shown.err
    return yaml.safe_load(shown.out)


def test_there_are_experiments() -> None:
    assert {"quickstart", "gpt2_medium_e2e", "llama2_ultrafeedback"} <= set(EXPERIMENTS)
    assert "quickstart" in LOCAL


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_parses(name: str, cli: CLI) -> None:
    config = printed(cli, "--config", name)
    assert config == printed(cli, "--config", str(configs.experiments()[name]))
    assert config == printed(cli, "--config", f"{name}.yaml")
    assert config == printed(cli, f"--config={name}")
    assert config["seed_everything"] == 42


@pytest.mark.parametrize("name", LOCAL)
def test_local_experiments_build_their_task(name: str, cli: CLI, tmp_path: Path) -> None:
    shown = cli("parameters", "--config", name)
    assert shown.status == 0, shown.err
    assert "tensors" in shown.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", PARTS)
def test_every_part_fits_an_experiment(part: str, cli: CLI, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "configs")
    logger = "Logger" in (FOLDER / part).read_text(encoding="utf-8")
    trainer = "--trainer.logger" if logger else "--trainer.strategy"
    option = {"methods": "--model.method", "trainer": trainer}[part.split("/")[0]]
    printed(cli, "--config", "configs/quickstart.yaml", option, f"configs/{part}")


@pytest.mark.parametrize("name", [*EXPERIMENTS, *PARTS])
def test_first_line_says_what_it_is(name: str) -> None:
    path = FOLDER / (name if name.endswith(".yaml") else f"{name}.yaml")
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    assert first.startswith("# ")
    assert len(configs.about(path)) > 10
    assert not re.search(r"[^\x20-\x7e]", first)


def test_listing_has_one_line_per_experiment(cli: CLI) -> None:
    shown = cli("configs")
    assert shown.status == 0
    lines = shown.out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == EXPERIMENTS
    assert all(configs.about(configs.experiments()[line.split()[0]]) in line for line in lines)
    assert all(study in shown.out.split("\n\n")[1] for study in STUDIES)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_copy_is_whole(name: str, cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copied = cli("configs", "--copy", name, "--to", "elsewhere/mine.yaml")
    assert copied.status == 0, copied.err
    assert "elsewhere/mine.yaml" in copied.out
    text = (tmp_path / "elsewhere/mine.yaml").read_text(encoding="utf-8")
    assert not re.search(r"[\w/]+\.yaml$", text, re.MULTILINE)
    assert printed(cli, "--config", "elsewhere/mine.yaml") == printed(cli, "--config", name)


@pytest.mark.parametrize("name", ["table1", "studies/own_texts"])
def test_a_study_can_be_copied(name: str, cli: CLI, tmp_path: Path) -> None:
    copied = cli("configs", "--copy", name, "--to", "mine.yaml")
    assert "run it with: python -m red_lightning study run mine.yaml" in copied.out
    assert "has no axes" not in cli("study", "status", "mine.yaml").err


def test_an_own_experiment_lies_beside_the_study(cli: CLI, tmp_path: Path) -> None:
    cli("configs", "--copy", "own_texts")
    cli("configs", "--copy", "studies/own_texts", "--to", "mine.yaml")
    study = (tmp_path / "mine.yaml").read_text().replace("config: own_texts ", "config: own_texts.yaml ")
    (tmp_path / "mine.yaml").write_text(study)
    text = (tmp_path / "own_texts.yaml").read_text().replace("FacebookAI/roberta-base", "my/backbone")
    (tmp_path / "own_texts.yaml").write_text(text)
    cells = expand(read_study(tmp_path / "mine.yaml"), files_beside(tmp_path / "mine.yaml"))
    assert {(cell.config, setting(cell.experiment, "model.backbone")) for cell in cells} == {
        (str(tmp_path / "own_texts.yaml"), "my/backbone")
    }


def test_copy_never_overwrites(cli: CLI, tmp_path: Path) -> None:
    assert cli("configs", "--copy", "quickstart").status == 0
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert "exists already" in cli("configs", "--copy", "quickstart").error
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"


def test_own_file_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs.find("quickstart.yaml") == configs.experiments()["quickstart"]
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert configs.find("quickstart.yaml") == Path("quickstart.yaml")
    assert configs.find("quickstart") == configs.experiments()["quickstart"]
    with pytest.raises(UsageError, match="neither a file nor a shipped experiment"):
        configs.find("nothing.yaml")
