"""What classes state of methods, against what the methods do, and for a user's own class."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import red_lightning
from red_lightning.adapters import apply_edits, combine_edits, read_edits, save_edits
from red_lightning.adapters.extensions import import_path
from red_lightning.adapters.record_checks import method_of
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.export.card_metadata import About
from red_lightning.export.folding import _densified
from red_lightning.export.model_card import write_card
from red_lightning.export.publishable import public_record
from red_lightning.methods import RED, FullFineTuning, LoRA, Method, QLoRA, SteeringVector, shipped
from red_lightning.methods.options import defaults_of
from tests.backbones_zoo import build

PACKAGE = Path(red_lightning.__file__).parent
PAPER = ("cli/alpaca_eval.py", "cli/mt_bench.py", "paper/hyperparameters.py")
"""Files that look up the paper's rows, which bear the names of methods."""
OPTIONS: dict[str, dict[str, Any]] = {
    "SteeringVector": {"pairs": "pairs.jsonl", "layer": 0},
    "AdapterDrop": {"drop": 0},
}
MERGES = {"yes": True, "no": False}


class Scaled(RED):
    """RED with one more option, whose value is no dimension of a parameter."""

    tags = ("scaled",)
    summary = "It scales."
    citation = "@article{scaled}"

    def __init__(self, sites: list[str] = ["ffn"], rank: int = 3, notes: str = "") -> None:  # noqa: B006
        super().__init__(sites)
        self.rank, self.notes = rank, notes


class Noted(Scaled):
    """It has a local file."""

    files = ("notes",)


class Bare(Method):
    """It overrides only what it must."""

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        return {}


class OwnQLoRA(QLoRA):
    """QLoRA with one more option."""

    def __init__(self, rank: int = 2, extra: int = 1) -> None:
        super().__init__(rank=rank)
        self.extra = extra


def record_of(method: Method, backbone: nn.Module | None = None, **record: Any) -> dict[str, Any]:
    own = {} if type(method).__name__ in shipped() else {"classes": {"method": import_path(type(method))}}
    print_of = {"fingerprint": fingerprint(backbone)} if backbone is not None else {}
    return {"backbone": "org/gpt2", "commit": None, **print_of, "method": method.describe(), **own, **record}


def leave(folder: Path, method: Method, seed: int) -> Path:
    backbone = build("gpt2")
    record = record_of(method, backbone)
    learned = method.apply(backbone)
    for vector in learned.values():
        vector.data += torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed))
    save_edits(folder, learned, record)
    return folder


def test_a_class_that_overrides_little_has_defaults() -> None:
    assert (Bare.packs, Bare.combines, Bare.unites, Bare.computed) == (True, None, False, False)
    assert (Bare.folds, Bare.follows_steps, Bare.weights) == (False, False, "any")
    assert (Bare.sizes, Bare.files, Bare.tags) == ((), (), ("parameter-efficient-fine-tuning",))
    own = Bare()
    assert own.dense() is own and own.virtual_tokens == 0 and own.limit(None, False) == ""


def test_what_is_overridden_counts_unless_declared() -> None:
    class Folds(Bare):
        def fold(self, backbone: nn.Module) -> None: ...

        def after_step(self, backbone: nn.Module, state: Any, step: int, steps: int) -> None: ...

    class Declared(Folds):
        folds = False

    class Below(Folds): ...

    assert [(each.folds, each.follows_steps) for each in (Folds, Declared, Below)] == [
        (True, True),
        (False, True),
        (True, True),
    ]


def test_the_table_of_the_readme_says_what_merges() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", text, re.MULTILINE)
    stated = {name: MERGES[says] for name, says in rows if name in shipped()}
    assert len(stated) > 10
    assert stated == {name: shipped()[name].folds for name in stated}


@pytest.mark.parametrize("name", shipped())
def test_a_class_states_which_weights_it_adapts(name: str) -> None:
    method = shipped()[name](**OPTIONS.get(name, {}))
    backbone = build("gpt2")
    if method.weights == "quantized":
        with pytest.raises(UsageError, match="quantized"):
            method.apply(backbone)
        return
    backbone.bfloat16()
    if method.weights == "float32":
        with pytest.raises(UsageError, match="fewer than 32 bits"):
            method.apply(backbone)
    else:
        assert all(parameter.dtype == torch.float32 for parameter in method.apply(backbone).values())


@pytest.mark.parametrize(
    "name", [name for name, each in shipped().items() if each.sizes and each.weights != "quantized"]
)
def test_sizes_are_dimensions_and_files_are_options(name: str) -> None:
    for option in shipped()[name].sizes:
        values = {"initial_rank": {"target_rank": 4}, "projection": {"length": 2}}.get(option, {})
        values |= OPTIONS.get(name, {})
        shapes = [p.shape for p in shipped()[name](**{**values, option: 13}).apply(build("gpt2")).values()]
        assert any(13 in shape for shape in shapes)
    assert {*shipped()[name].files} <= {*inspect.signature(shipped()[name]).parameters}


def test_an_own_option_that_is_called_rank_is_no_size(tmp_path: Path) -> None:
    leave(tmp_path / "a", Scaled(rank=3), 1)
    assert apply_edits(build("gpt2"), tmp_path / "a", trust=["tests"])


def test_own_adapters_unite_as_those_they_extend(tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", Scaled(), 1), leave(tmp_path / "b", Scaled(["attention"]), 2)
    combine_edits([a, b], tmp_path / "c", how="stack", trust=["tests"])
    tensors, record = read_edits(tmp_path / "c")
    assert record["method"] == {**Scaled().describe(), "sites": ["ffn", "attention"]}
    assert {*tensors} == {*read_edits(a)[0], *read_edits(b)[0]}
    leave(tmp_path / "d", Scaled(rank=4), 3)
    with pytest.raises(UsageError, match="different values of 'rank'"):
        combine_edits([a, tmp_path / "d"], tmp_path / "e", trust=["tests"])


def test_defaults_are_those_that_a_class_is_built_with() -> None:
    for each in (RED, LoRA, Scaled, OwnQLoRA):
        built = each().describe()
        assert {name: built[name] for name in defaults_of(each)} == defaults_of(each)
        assert {"name", *defaults_of(each)} == {*built}


def test_a_card_says_what_the_class_says() -> None:
    def card(method: Method, trust: tuple[str, ...] = ()) -> str:
        record = record_of(method, labels=None)
        return write_card(About("me/mine", record, {}, {}, {}, {}, None, None, trust=trust))

    own = card(Scaled(), ("tests",))
    assert "- scaled\n" in own and "It scales." in own and "@article{scaled}" in own
    untrusted = card(Scaled())
    assert "scaled}" not in untrusted and "- parameter-efficient-fine-tuning\n" in untrusted
    assert "parameter-efficient" not in card(FullFineTuning()) and "2402.15179" not in card(LoRA())
    assert "- representation-editing\n" in card(RED()) and "2402.15179" in card(RED())


def test_a_public_record_shortens_the_files_that_the_class_names() -> None:
    method = Noted(notes="clients/acme/notes.txt")
    assert public_record(record_of(method), "org/m", None, ["tests"])["method"]["notes"] == "notes.txt"
    kept = Scaled(notes="clients/notes")
    assert public_record(record_of(kept), "org/m", None, ["tests"])["method"]["notes"] == "clients/notes"
    steering = SteeringVector("clients/pairs.jsonl", 0)
    assert public_record(record_of(steering), "org/m", None)["method"]["pairs"] == "pairs.jsonl"


def test_own_methods_of_quantized_backbones_merge_as_those_they_extend(tmp_path: Path) -> None:
    record = record_of(OwnQLoRA(rank=5))
    dense = method_of(_densified(record, tmp_path, ["tests"]), "edits")
    assert type(dense) is LoRA
    assert dense.describe() == {**QLoRA(rank=5).describe(), "name": "LoRA"}
    assert _densified(record_of(Scaled()), tmp_path, ["tests"]) == record_of(Scaled())


def comparisons(file: Path) -> Iterator[str]:
    """Comparisons with the name of a method, and tests of an object for the class of a method."""
    names = {*shipped()}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            parts = list(node.args[1:])
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List | ast.Set):
            parts = [] if getattr(node.targets[0], "id", "") == "__all__" else [node.value]
        for each in (each for part in parts for each in ast.walk(part)):
            word = getattr(each, "value", None) if isinstance(each, ast.Constant) else getattr(each, "id", None)
            if isinstance(word, str) and word in names:
                yield f"{file}:{each.lineno} {word}"  # type: ignore[attr-defined]


def test_nothing_outside_asks_for_a_method_by_name(tmp_path: Path) -> None:
    files = [file for file in PACKAGE.rglob("*.py") if str(file.relative_to(PACKAGE)) not in PAPER]
    outside = [file for file in files if file.parent.name not in ("methods", "benchmark")]
    assert [found for file in outside for found in comparisons(file)] == []
    bad = tmp_path / "bad.py"
    bad.write_text('if m == "RED" or isinstance(m, LoRA) or k is RED: A = ("SSF",)\n', encoding="utf-8")
    assert len(list(comparisons(bad))) == 3 + 1
