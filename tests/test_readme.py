"""What the README shows works."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from red_lightning.__main__ import TOOLS, TRAINING

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_trains_and_folds() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    names: dict[str, object] = {}
    exec(example[1], names)
    model, parameters = names["model"], names["parameters"]
    assert any((p != 1).any() for name, p in parameters.items() if name.endswith("scaling"))  # type: ignore[attr-defined]
    assert not any(module._forward_hooks for module in model.modules())  # type: ignore[attr-defined]
    assert isinstance(names["loss"], torch.Tensor)


@pytest.mark.parametrize("command", re.findall(r"python -m red_lightning (\w+)", README))
def test_commands_exist(command: str) -> None:
    assert command in {**TRAINING, **TOOLS}


def test_configs_pictures_and_ci_exist() -> None:
    for path in re.findall(r"`(configs/[\w/]+\.yaml)`|\]\(([\w/]+\.png)\)", README):
        assert (ROOT / (path[0] or path[1])).is_file()
    command = re.search(r"```bash\n(.*pytest)\n```", README)
    assert command is not None
    assert command[1].removeprefix("python -m pip install ") in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_figures_are_the_configs() -> None:
    beside = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))["run"]["beside"]
    for score in beside["all weights trained"].values():
        assert f"{score:.4f}" in README
