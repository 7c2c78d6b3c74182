"""Parts that a user's own config includes, and classes that it names: found from any folder, or named as wrong."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from red_lightning.cli import configs
from tests.cli.conftest import CLI

MODULE = "included_for_tests"


@pytest.fixture
def config(tmp_path: Path, experiment: Path) -> Path:
    """A folder of a user's own configs, which is not the working folder."""
    (tmp_path / "configs_of_mine/parts").mkdir(parents=True)
    return tmp_path / "configs_of_mine/mine.yaml"


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.startswith(MODULE)]:
        del sys.modules[name]


def write(config: Path, **changes: Any) -> None:
    content = json.loads((config.parents[1] / "small.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        node = content
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    config.write_text(yaml.safe_dump(content), encoding="utf-8")


def printed(cli: CLI, config: Path, *args: str) -> dict[str, Any]:
    shown = cli("fit", "--config", str(config), *args, "--print_config")
    assert shown.status == 0, shown.err
    return yaml.safe_load(shown.out)


def test_parts_that_ship_are_found_from_any_folder(config: Path, cli: CLI) -> None:
    write(config, model__init_args__method="methods/lora.yaml", trainer__logger="trainer/csv.yaml")
    found = printed(cli, config)
    assert found["model"]["init_args"]["method"]["class_path"].endswith("LoRA")
    assert found["trainer"]["logger"][0]["class_path"].endswith("CSVLogger")
    write(config, model__init_args__method="configs/methods/ssf.yaml")
    assert printed(cli, config)["model"]["init_args"]["method"]["class_path"].endswith("SSF")


def test_a_part_beside_the_config_comes_first(config: Path, cli: CLI) -> None:
    (config.parent / "methods").mkdir()
    part = "class_path: RED\ninit_args: {sites: [attention], vectors: bias}\n"
    (config.parent / "methods/red.yaml").write_text(part, encoding="utf-8")
    write(config, model__init_args__method="methods/red.yaml")
    options = printed(cli, config)["model"]["init_args"]["method"]["init_args"]
    assert (options["sites"], options["vectors"]) == (["attention"], "bias")


def test_parts_include_parts(config: Path, cli: CLI) -> None:
    content = json.loads((config.parents[1] / "small.yaml").read_text(encoding="utf-8"))
    model = content["model"]
    model["init_args"] |= {"method": "red_here.yaml", "learning_rate": "1e-2"}
    (config.parent / "parts/model.yaml").write_text(yaml.safe_dump(model), encoding="utf-8")
    (config.parent / "parts/red_here.yaml").write_text("class_path: RED\ninit_args: {vectors: scaling}\n")
    write(config, model="parts/model.yaml")
    found = printed(cli, config)["model"]["init_args"]
    assert found["method"]["init_args"]["vectors"] == "scaling"
    assert found["learning_rate"] == 0.01
    (config.parent / "parts/model.yaml").write_text(
        yaml.safe_dump({**model, "init_args": {**model["init_args"], "method": "methods/bitfit.yaml"}})
    )
    assert printed(cli, config)["model"]["init_args"]["method"]["class_path"].endswith("BitFit")
    given = printed(cli, config.parents[1] / "small.yaml", "--model", "configs_of_mine/parts/model.yaml")
    assert given["model"]["init_args"]["method"]["class_path"].endswith("BitFit")


def test_a_copied_config_runs_from_a_third_folder(config: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("configs", "--copy", "quickstart", "--to", str(config)).status == 0
    (config.parents[1] / "third").mkdir()
    monkeypatch.chdir(config.parents[1] / "third")
    copied = printed(cli, config)
    config.write_text((configs.folder() / "quickstart.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert "method: methods/red.yaml" in config.read_text(encoding="utf-8")
    assert copied == printed(cli, config) == printed(cli, Path("quickstart"))


WRONG: dict[str, tuple[str, Any, list[str]]] = {
    "missing": (
        "model__init_args__method",
        "methods/redd.yaml",
        ["model.method in", "'methods/redd.yaml'", "did you mean 'methods/red.yaml'?"],
    ),
    "kind of a class": (
        "trainer__strategy",
        "methods/red.yaml",
        ["trainer.strategy in", "methods/red.yaml", "takes a strategy, but 'RED' is a method"],
    ),
    "an experiment": (
        "model__init_args__method",
        "quickstart.yaml",
        ["model.method in", "quickstart.yaml", "is no method: it has the key 'model'"],
    ),
    "no settings": ("model__init_args__method", "parts/text.yaml", ["parts/text.yaml", "must hold settings by name"]),
    "syntax": ("model__init_args__method", "parts/broken.yaml", ["line 2 of", "parts/broken.yaml", "is no YAML"]),
    "itself": ("model", "parts/loop.yaml", ["includes itself", "'loop.yaml'"]),
    "module": (
        "model__init_args__method",
        {"class_path": f"{MODULE[:-1]}.Mine"},
        ["model.method in", f"there is no module '{MODULE[:-1]}'", f"did you mean '{MODULE}'?"],
    ),
    "class": (
        "model__init_args__method",
        {"class_path": f"{MODULE}.Mein"},
        ["model.method in", f"'{MODULE}' has no 'Mein'", "did you mean 'Mine'?"],
    ),
    "another kind": (
        "model__init_args__method",
        {"class_path": f"{MODULE}.Helper"},
        ["that is no method", "red_lightning.Method"],
    ),
    "raises": (
        "model__init_args__method",
        {"class_path": f"{MODULE}_raises.Mine"},
        [f"importing '{MODULE}_raises' fails: ValueError: no licence"],
    ),
    "imports what is missing": (
        "data",
        {"class_path": f"{MODULE}_imports.Mine"},
        ["data in", "No module named 'nowhere_at_all'"],
    ),
    "a task for data": ("data__class_path", "red_lightning.tasks.DataToText", ["data in", "that is no data module"]),
    "class in a part": (
        "model__init_args__method",
        "parts/typo.yaml",
        ["parts/typo.yaml", "which model.method in", "has no 'Mein'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, config: Path, cli: CLI) -> None:
    key, value, fragments = WRONG[name]
    here = config.parents[1]
    text = "from red_lightning import RED\n\n\nclass Mine(RED):\n    pass\n\n\nclass Helper:\n    pass\n"
    (here / f"{MODULE}.py").write_text(text, encoding="utf-8")
    (here / f"{MODULE}_raises.py").write_text("raise ValueError('no licence')\n", encoding="utf-8")
    (here / f"{MODULE}_imports.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    parts = {
        "text": "RED\n",
        "broken": "class_path: RED\ninit_args: {sites: [ffn\n",
        "loop": "class_path: DataToText\ninit_args: {method: loop.yaml}\n",
        "typo": f"class_path: {MODULE}.Mein\n",
    }
    for part, content in parts.items():
        (config.parent / f"parts/{part}.yaml").write_text(content, encoding="utf-8")
    write(config, **{key: value})
    error = cli("fit", "--config", str(config)).error
    assert [fragment for fragment in fragments if fragment not in error] == [], error
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize("option", ["--model.method", "--model.method.class_path"])
def test_a_class_on_the_command_line(option: str, config: Path, cli: CLI) -> None:
    (config.parents[1] / f"{MODULE}.py").write_text("from red_lightning import RED\n\n\nclass Mine(RED):\n    pass\n")
    error = cli("fit", "--config", "small.yaml", option, f"{MODULE}.Min").error
    assert f"{option} names the method '{MODULE}.Min', but '{MODULE}' has no 'Min': did you mean 'Mine'?" in error
    found = printed(cli, Path("small.yaml"), "--model.method", f"{MODULE}.Mine")
    assert found["model"]["init_args"]["method"]["class_path"] == f"{MODULE}.Mine"


def test_the_installed_script_finds_modules_here_after_installed_ones(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [place for place in sys.path if place not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", [*before])
    assert cli("unknown").status == 2
    assert sys.path == [*before, str(tmp_path)]
    assert cli("unknown").status == 2
    assert sys.path == [*before, str(tmp_path)]
