"""What the README shows works."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from red_lightning import save_edits
from red_lightning.__main__ import TOOLS, TRAINING
from tests.backbones_zoo import save_backbone
from tests.labeled import configured_classifier

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_trains_and_folds() -> None:
    _, example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    model, parameters = names["model"], names["parameters"]
    assert any((p != 1).any() for name, p in parameters.items() if name.endswith("scaling"))  # type: ignore[attr-defined]
    assert not any(module._forward_hooks for module in model.modules())  # type: ignore[attr-defined]
    assert isinstance(names["loss"], torch.Tensor)


def test_the_classifiers_example_is_what_the_task_says(tmp_path: Path) -> None:
    task = configured_classifier(save_backbone("roberta", tmp_path / "roberta"))
    vectors = {name.removeprefix("backbone."): p for name, p in task.trainable_parameters().items()}
    save_edits(tmp_path / "edits", vectors, task.record())
    example, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.replace("runs/RUN/edits", str(tmp_path / "edits")), names)
    with torch.no_grad():
        logits = task(names["inputs"]["input_ids"], names["inputs"]["attention_mask"])
    assert names["label"] == task.labels[int(logits.argmax())]  # type: ignore[index]
    torch.testing.assert_close(names["logits"], logits, atol=1e-5, rtol=0)


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
