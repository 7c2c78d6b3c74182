"""A method, a task and a data module of a user's own: trained, loaded with consent, refused without."""

import gc
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import red_lightning
from red_lightning.errors import UsageError
from red_lightning.generation import EditBank, Writer
from red_lightning.generation.prompts import trained_style
from tests.backbones_zoo import save_backbone
from tests.cli.commands import REPOSITORY, run_apart, write_experiment
from tests.cli.conftest import CLI

METHODS = '''
from torch import nn

from red_lightning import RED, Method
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import attach, freeze, trainable
from red_lightning.editing.learned import Learned
from red_lightning.methods.red import RepresentationEditor, fold_editors


class Shift(Method):
    """Learn one bias at each site.

    Args:
        sites: Where.
        start: Its first values.
    """

    combines = "affine"

    def __init__(self, sites: list[str] = ["ffn"], start: float = 0.0) -> None:
        self.sites, self.start = sites, start
        self.seen = object()  # which is no option

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        freeze(backbone)
        for site in find_sites(backbone, self.sites, None):
            editor = RepresentationEditor(site.width, scaling=False)
            editor.bias.data += self.start
            attach(backbone, site, editor)
        return trainable(backbone)

    def fold(self, backbone: nn.Module) -> None:
        fold_editors(backbone)


class Forgets(Shift):
    def __init__(self, width: int = 1) -> None:
        super().__init__()


class Unfinished(Method):
    pass


class Helper:
    pass
'''

TASKS = '''
from red_lightning.tasks import DataToText


class Describe(DataToText):
    """Data-to-text under another name.

    Args:
        **options: Those of DataToText.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options)
'''

DATA = '''
from red_lightning.data import TextPairs


class Shouted(TextPairs):
    """Pairs whose targets are in capitals.

    Args:
        **options: Those of TextPairs.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options)

    def read(self, split):
        return [{**row, "target": row["target"].upper()} if "target" in row else row for row in super().read(split)]
'''

ME = "mine_for_tests"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a user's package and a run of its method, task and data module."""
    folder = tmp_path_factory.mktemp("own")
    (folder / ME).mkdir()
    for name, text in {"__init__": "", "methods": METHODS, "tasks": TASKS, "data": DATA}.items():
        (folder / ME / f"{name}.py").write_text(text, encoding="utf-8")
    path = write_experiment(folder, save_backbone("gpt2", folder / "gpt2"), max_epochs=1)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["class_path"] = f"{ME}.tasks.Describe"
    content["model"]["init_args"]["method"] = {"class_path": f"{ME}.methods.Shift", "init_args": {"start": 0.25}}
    content["data"]["class_path"] = f"{ME}.data.Shouted"
    path.write_text(json.dumps(content), encoding="utf-8")
    done = run_apart(folder, "fit", "--config", "small.yaml", "--run.name", "own")
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    # jsonargparse imports every subclass that is alive, also in later tests: let it find those that are
    for kind in [each for each in gc.get_objects() if issubclass(type(each), type)]:
        if str(kind.__module__).partition(".")[0] in (ME, f"{ME}_evil"):
            for name in (ME, kind.__module__):
                sys.modules.setdefault(name, ModuleType(name))
            setattr(sys.modules[kind.__module__], kind.__name__, kind)


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch, cli: CLI) -> Iterator[Path]:
    """The same folder as the working folder; afterwards nothing of the package is imported."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield place
    for name in [name for name in sys.modules if name.partition(".")[0] in (ME, f"{ME}_evil")]:
        del sys.modules[name]


def record_of(place: Path) -> dict[str, Any]:
    return json.loads((place / "runs/own/edits/edits.json").read_text(encoding="utf-8"))


def test_every_record_says_where_the_classes_are(place: Path) -> None:
    classes = {"method": f"{ME}.methods.Shift", "task": f"{ME}.tasks.Describe", "data": f"{ME}.data.Shouted"}
    record = record_of(place)
    assert record["classes"] == classes
    assert record["task"] == "DataToText"
    assert record["method"] == {"name": "Shift", "sites": ["ffn"], "start": 0.25}
    assert json.loads((place / "runs/own/results.json").read_text(encoding="utf-8"))["classes"] == classes
    checkpoint = torch.load(place / "runs/own/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["red_lightning"]["classes"] == classes


def test_generate_in_processes_of_their_own(place: Path) -> None:
    """Without consent nothing is imported, and the sentence says what to give."""
    marker = place / "imported"
    file = place / ME / "methods.py"
    file.write_text(f"open({str(marker)!r}, 'w').close()\n{METHODS}", encoding="utf-8")
    args = ("generate", "runs/own", "--prompt", "name[Aromi]")
    refused = run_apart(place, *args)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"error: 'runs/own/edits/edits.json' was made with the method '{ME}.methods.Shift', which is not part of "
        f"red_lightning; if you trust its code, give --trust {ME} (in Python trust=['{ME}'])"
    )
    assert not marker.exists()
    written = run_apart(place, *args, "--trust", ME)
    assert written.returncode == 0, written.stderr
    assert written.stdout.strip()
    assert marker.exists()


def test_tools_read_the_adapter_with_consent(here: Path, cli: CLI) -> None:
    commands: dict[str, list[str]] = {
        "export": ["export", "runs/own", "--output", "merged"],
        "combine": ["combine", "runs/own", "runs/own", "--output", "both"],
        "generate": ["generate", "runs/own", "--file", "prompts.txt", "--output", "answers.jsonl"],
        "chat": ["chat", "runs/own"],
    }
    (here / "prompts.txt").write_text("name[Aromi]\n", encoding="utf-8")
    for name, args in commands.items():
        assert f"give --trust {ME} " in cli(*args).error, name
        assert f"give --trust {ME} " in cli(*args, "--trust", f"{ME[:-1]}").error, name
    for name in ("export", "combine", "generate"):
        done = cli(*commands[name], "--trust", "other", "--trust", ME)
        assert done.status == 0, (name, done.err)
    assert "largest logit difference" in cli("export", "runs/own", "--output", "again", "--trust", f"{ME}.methods").out
    mean = json.loads((here / "both/edits.json").read_text(encoding="utf-8"))
    assert mean["classes"]["method"] == f"{ME}.methods.Shift"
    assert red_lightning.load("both", trust=ME).record["method"]["name"] == "Shift"


def test_the_unedited_backbone_needs_no_consent(here: Path, cli: CLI) -> None:
    shown = cli("generate", "runs/own", "--prompt", "name[Aromi]", "--edited", "false")
    assert shown.status == 0, shown.err
    assert ME not in sys.modules


def test_predict_and_test_use_the_config(here: Path, cli: CLI) -> None:
    best = ("--config", "small.yaml", "--ckpt_path", "runs/own/checkpoints/best.ckpt")
    tested = cli("test", *best, "--run.name", "tested")
    assert tested.status == 0, tested.err
    trained = json.loads((here / "runs/own/results.json").read_text(encoding="utf-8"))
    again = json.loads((here / "runs/tested/results.json").read_text(encoding="utf-8"))
    assert again["scores"] == trained["scores"]
    assert cli("predict", *best, "--data.predict_file", "validation.jsonl", "--run.name", "predicted").status == 0
    predicted = (here / "runs/predicted/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    (here / "one.txt").write_text(json.loads(predicted[0])["source"] + "\n", encoding="utf-8")
    written = cli("generate", "runs/own", "--file", "one.txt", "--trust", ME)
    assert json.loads(written.out)["output"] == json.loads(predicted[0])["prediction"]


def test_a_task_that_extends_none_needs_a_template(place: Path) -> None:
    record = {**record_of(place), "task": "Solo", "classes": {"task": f"{ME}.tasks.Solo"}}
    with pytest.raises(UsageError, match=rf"the task '{ME}.tasks.Solo', so how .* give --template"):
        trained_style(record, None)


def test_python_loads_what_was_trained(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    with pytest.raises(UsageError, match=f"give --trust {ME} "):
        red_lightning.load("runs/own")
    assert ME not in sys.modules
    model = red_lightning.load("runs/own", trust=[ME])
    tensors = red_lightning.adapters.read_edits("runs/own/edits")[0]
    for name, tensor in tensors.items():
        module, _, vector = name.rpartition(".")
        assert torch.equal(model.backbone.get_submodule(f"{module}.editor").get_parameter(vector), tensor)
    assert Writer(model).write(["name[Aromi]"])
    bank = EditBank(AutoModelForCausalLM.from_pretrained("gpt2").eval())
    with pytest.raises(UsageError, match="give --trust"):
        bank.add("a", "runs/own")
    bank.add("a", "runs/own", trust=[ME])
    tokens = model.tokenizer("name[Aromi]", return_tensors="pt")
    with torch.no_grad(), bank.use(["a"]):
        banked = bank.backbone(**tokens).logits
    torch.testing.assert_close(banked, model.backbone(**tokens).logits)


def test_an_installed_package_may_consent(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = here / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[red_lightning.extensions]\nmine = {ME}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(here / "site"))
    monkeypatch.syspath_prepend(str(here))
    assert red_lightning.load("runs/own").record["method"]["name"] == "Shift"


HOSTILE: dict[str, Any] = {
    "os.system": "give --trust os ",
    "subprocess.Popen": "give --trust subprocess ",
    f"{ME}_evil.methods.Shift": f"give --trust {ME}_evil ",
    f"{ME}.methods.nn.Module": "that is no method",
    f"{ME}.methods.Helper": "that is no method",
    f"{ME}.methods.Method": "that class does not define apply",
    f"{ME}.methods.Unfinished": "that class does not define apply",
    f"{ME}.methods.Shif": "did you mean 'Shift'?",
    f"{ME}.metods.Shift": "did you mean 'methods'?",
    f"{ME}.methods.Shift.apply": "that is no method",
    f"{ME}..methods.Shift": "no import path",
    f"{ME}.methods.make.<locals>.Shift": "is defined inside a function",
    f"{ME}.methods.Shift; import os": "no import path",
    "nothing": "no import path",
    "": "no import path",
    ".": "give --trust",
    f"{ME}." + "x" * 10**6: "no import path",
    f"{ME}.\x1b[2J.Shift": "no import path",
}


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path[:30])
def test_a_hostile_record_is_refused(path: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / f"{ME}_evil.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    shutil.copytree(here / "runs/own/edits", tmp_path / "edits")
    record = {**record_of(here), "classes": {"method": path}}
    (tmp_path / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        red_lightning.load(tmp_path / "edits", backbone=str(here / "gpt2"), trust=[ME])
    assert HOSTILE[path] in str(refused.value)
    assert len(str(refused.value)) < 1500
    assert f"{ME}_evil" not in sys.modules


@pytest.mark.parametrize("classes", [3, [], "a.B", {"method": 3}, {"method": None}, {"method": ["os.system"]}])
def test_classes_of_another_type(classes: Any, here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "runs/own/edits", tmp_path / "edits")
    record = {**record_of(here), "classes": classes}
    (tmp_path / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match=r"class.* in edits\.json"):
        red_lightning.load(tmp_path / "edits", trust=[ME])


def test_consent_to_python_itself_gives_no_method(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "runs/own/edits", tmp_path / "edits")
    for path in ("os.system", "subprocess.Popen", "builtins.eval"):
        record = {**record_of(here), "classes": {"method": path}}
        (tmp_path / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(UsageError, match="that is no method"):
            red_lightning.load(tmp_path / "edits", backbone=str(here / "gpt2"), trust=[path.partition(".")[0]])


def test_a_class_that_has_changed(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    shutil.copytree(here / "runs/own/edits", tmp_path / "edits")
    record = record_of(here)
    record["method"]["strength"] = 2
    (tmp_path / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UsageError, match=r"no longer takes: .*strength.*; it takes sites, start"):
        red_lightning.load(tmp_path / "edits", backbone=str(here / "gpt2"), trust=[ME])


def test_an_adapter_from_before(here: Path, cli: CLI, tmp_path: Path) -> None:
    shutil.copytree(here / "runs/own/edits", tmp_path / "edits")
    record = {name: value for name, value in record_of(here).items() if name != "classes"}
    (tmp_path / "edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    error = cli("generate", str(tmp_path / "edits"), "--backbone", str(here / "gpt2"), "--prompt", "a").error
    assert "unknown method 'Shift'" in error
    assert '"classes": {"method": "my_package.module.Name"}' in error


def test_options_that_would_be_lost_are_refused_before_training(here: Path, cli: CLI) -> None:
    error = cli("fit", "--config", "small.yaml", "--model.method", f"{ME}.methods.Forgets").error
    assert "Forgets takes 'width' but does not keep it" in error


def test_the_card_says_what_to_trust(here: Path, cli: CLI) -> None:
    args = ("push", "runs/own", "--to", "me/mine", "--backbone", "org/gpt2", "--dry_run", "true")
    record = record_of(here)
    (here / "runs/own/edits/edits.json").write_text(json.dumps({**record, "commit": "0" * 40, "backbone": "org/gpt2"}))
    try:
        shown = cli(*(arg for arg in args if arg not in ("--backbone", "org/gpt2")))
    finally:
        (here / "runs/own/edits/edits.json").write_text(json.dumps(record), encoding="utf-8")
    assert shown.status == 0, shown.err
    assert f"`{ME}.methods.Shift`" in shown.out
    assert f"generate me/mine --trust {ME} --prompt" in shown.out
    assert f'red_lightning.load("me/mine", trust=["{ME}"])' in shown.out
    assert f"Install the package `{ME}`" in shown.out


def test_the_method_of_the_readme(here: Path, cli: CLI) -> None:
    (example,) = re.findall(r"```py\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (here / "my_method.py").write_text(example, encoding="utf-8")
    run = ("--run.name", "readme", "--trainer.max_epochs", "1")
    fitted = cli("fit", "--config", "small.yaml", "--model.method", "my_method.Shift", *run)
    assert fitted.status == 0, fitted.err
    assert "give --trust my_method " in cli("generate", "runs/readme", "--prompt", "name[Aromi]").error
    shown = cli("generate", "runs/readme", "--prompt", "name[Aromi]", "--trust", "my_method")
    assert shown.status == 0, shown.err
