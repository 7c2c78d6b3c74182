"""The edits on disk: a round trip is exact, and what does not belong together is refused."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from red_lightning import RED
from red_lightning.adapters import apply_edits, file_format, load_head, read_edits, save_edits
from red_lightning.adapters.record_checks import FIELDS, REQUIRED
from red_lightning.backbones.classification_head import ClassificationHead
from red_lightning.backbones.fingerprint import fingerprint, summary
from red_lightning.errors import UsageError
from red_lightning.methods import FullFineTuning, LoRA, PrefixTuning, PromptTuning
from red_lightning.methods.method import Method
from red_lightning.methods.red import RED_PLUS_SITES
from tests.adapters.test_released_files import Evil
from tests.backbones_zoo import build

INPUT = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
METHODS = {
    "ffn": RED(),
    "plus": RED(RED_PLUS_SITES),
    "residual scaling": RED(["residual"], "scaling"),
    "one layer's bias": RED(["attention"], "bias", [-1]),
}


def outputs(model: nn.Module) -> Tensor:
    extra = {"decoder_input_ids": INPUT} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=INPUT, **extra)[0]


def saved(folder: Path, family: str = "gpt2", method: Method | None = None) -> nn.Module:
    """Save random edits of a random backbone."""
    method = method or RED()
    backbone = build(family)
    record = {"backbone": f"org/{family}", "commit": None, "fingerprint": fingerprint(backbone), "task": "DataToText"}
    record["architecture"] = summary(backbone.config)
    learned = method.apply(backbone)
    generator = torch.Generator().manual_seed(1)
    for vector in learned.values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    save_edits(folder, learned, {**record, "method": method.describe()})
    return backbone


def rewrite(tensors: dict[str, Tensor], folder: Path) -> None:
    """Put other tensors into the file of an adapter, whose record then says no digest."""
    save_file(tensors, folder / "edits.safetensors", {"format": "pt"})
    record = json.loads((folder / "edits.json").read_text(encoding="utf-8"))
    record.pop("sha256", None)
    (folder / "edits.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("bias", None, "bias' is missing"),
        ("bias", torch.ones(31), r"bias' has the shape \(31,\), but must have \(32,\)"),
        ("extra", torch.ones(32), "extra' is no parameter of it"),
    ],
)
def test_what_does_not_fit_is_said(name: str, tensor: Tensor | None, said: str, tmp_path: Path) -> None:
    saved(tmp_path)
    site, tensors = "transformer.h.0.mlp.c_proj", load_file(tmp_path / "edits.safetensors")
    tensors.pop(f"{site}.{name}", None)
    tensors |= {} if tensor is None else {f"{site}.{name}": tensor}
    rewrite(tensors, tmp_path)
    with pytest.raises(UsageError, match=f"do not fit their method: '{site}.{said}"):
        apply_edits(build("gpt2"), tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "t5", "roberta", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_round_trip_is_exact(family: str, name: str, tmp_path: Path) -> None:
    edited = saved(tmp_path / "edits", family, METHODS[name])
    fresh = build(family)
    assert not torch.equal(outputs(fresh), outputs(edited))
    parameters = apply_edits(fresh, tmp_path / "edits")
    assert torch.equal(outputs(fresh), outputs(edited))
    ours, theirs = fresh.state_dict(), edited.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert set(parameters) == {key for key, p in fresh.named_parameters() if p.requires_grad}


def test_full_fine_tuning_too(tmp_path: Path) -> None:
    edited = saved(tmp_path, "gpt2", FullFineTuning())
    fresh = build("gpt2")
    apply_edits(fresh, tmp_path)
    assert torch.equal(outputs(fresh), outputs(edited))


def test_plain_safetensors_and_json_read_the_files(tmp_path: Path) -> None:
    backbone = saved(tmp_path)
    stored = load_file(tmp_path / "edits.safetensors")
    assert set(stored) == {
        f"transformer.h.{layer}.mlp.c_proj.{vector}" for layer in (0, 1) for vector in ("scaling", "bias")
    }
    for name, value in stored.items():
        module, vector = name.rsplit(".", 1)
        assert torch.equal(value, backbone.get_submodule(f"{module}.editor").get_parameter(vector))
    with safe_open(tmp_path / "edits.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    record = json.loads((tmp_path / "edits.json").read_text(encoding="utf-8"))
    assert record["format"] == 1
    assert record["method"] == {"name": "RED", "sites": ["ffn"], "vectors": "both", "layers": None}
    assert set(record["libraries"]) >= {"torch", "transformers"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edits.json", "edits.safetensors"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    saved(tmp_path)
    saved(tmp_path, "gpt2", RED(vectors="bias"))
    tensors, record = read_edits(tmp_path)
    assert len(tensors) == 2 and record["method"]["vectors"] == "bias"


def change_record(folder: Path, **changes: Any) -> None:
    """Change fields of edits.json, or (None) leave them out."""
    path = folder / "edits.json"
    record = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}), encoding="utf-8")


def refused(folder: Path, backbone: nn.Module | None = None, named: bool = True) -> str:
    """The complaint, after which the backbone is as it was."""
    backbone = backbone or build("gpt2")
    before, names = outputs(backbone), [name for name, _ in backbone.named_modules()]
    with pytest.raises(UsageError) as caught:
        apply_edits(backbone, folder)
    assert torch.equal(outputs(backbone), before)
    assert [name for name, _ in backbone.named_modules()] == names
    message = str(caught.value)
    assert "\n" not in message and (str(folder) in message or not named)
    return message


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (lambda: build("gpt2", layers=3), ", whose num_hidden_layers is 2 and not 3"),
        (lambda: build("llama"), ", whose model_type is gpt2 and not llama"),
        (lambda: build("gpt2", seed=1), ", which has this architecture, but other weights"),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_another_backbone_is_refused(other: Any, why: str, described: bool, tmp_path: Path) -> None:
    saved(tmp_path)
    if not described:  # as older runs left them
        change_record(tmp_path, architecture=None)
    message = refused(tmp_path, other())
    assert message.endswith("belong to another backbone: 'org/gpt2'") or described
    assert why in message or not described


def test_a_backbone_that_is_edited_already_is_refused(tmp_path: Path) -> None:
    backbone = saved(tmp_path)
    assert "edited already" in refused(tmp_path, backbone, named=False)


@pytest.mark.parametrize("name", ["edits.safetensors", "edits.json"])
def test_missing_and_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    for damage in (b"", content[:20], content[:-1], b"\xff" + content[1:], b"[1, 2]"):
        path.write_bytes(damage)
        if name == "edits.json" and damage == content[:-1]:
            continue  # only the last newline is missing
        assert "are damaged" in refused(tmp_path)
    path.unlink()
    assert f"holds no edits: it has no {name}" in refused(tmp_path)
    assert "holds no edits" in refused(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "newer format 2"),
        ({"format": 2, "method": [], "backbone": 3}, "newer format 2"),
        ({"format": "x"}, "does not say its format"),
        ({"format": True}, "does not say its format"),
        ({"format": 0}, "does not say its format"),
        ({"fingerprint": None}, "does not say the fingerprint"),
        ({"method": None}, "does not say the method"),
        ({"backbone": ""}, "does not say the backbone"),
        ({"backbone": 5}, "the backbone in edits.json must be a text"),
        ({"backbone": "org/a\nerror: b"}, "the backbone in edits.json holds a character that cannot be printed"),
        ({"fingerprint": ["a"]}, "the fingerprint in edits.json must be a text"),
        ({"commit": 5}, "the commit in edits.json must be a text or null"),
        ({"labels": "yes"}, "the labels in edits.json must be a list or null"),
        ({"labels": ["yes", 5]}, "the labels in edits.json must be texts"),
        ({"architecture": "gpt2"}, "the architecture in edits.json must be an object"),
        ({"quantization": "int2"}, "unknown quantization 'int2'"),
        ({"head": []}, "the head in edits.json must be an object or null"),
        (
            {"head": {"pooling": "all"}},
            "the head in edits.json needs a pooling, one of first, mean, last, pooler",
        ),
        (
            {"head": {"pooling": "first", "dropout": "0.5"}},
            "the dropout of the head in edits.json must be a number",
        ),
        ({"method": "RED"}, "the method in edits.json must be an object"),
        ({"method": {"name": ["RED"]}}, "names no method"),
        ({"method": {"name": "REDD"}}, "unknown method 'REDD': did you mean 'RED'"),
        ({"method": {"name": "Method"}}, "unknown method 'Method'"),
        ({"method": {"name": "RED_PLUS_SITES"}}, "unknown method 'RED_PLUS_SITES'"),
        ({"method": {"name": "RED", "strength": 2}}, "odd options"),
        ({"method": {"name": "RED", "sites": 2}}, "odd options"),
        ({"method": {"name": "RED", "sites": [2]}}, "odd options"),
        ({"method": {"name": "RED", "layers": ["x"]}}, "odd options"),
        ({"method": {"name": "LoRA", "rank": "x"}}, "odd options"),
    ],
)
def test_records_that_make_no_sense_are_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    saved(tmp_path)
    change_record(tmp_path, **change)
    assert complaint in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 1}',
        "[]",
        "null",
        "[" * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        " " * (16 << 20) + "{}",
        '{"a": NaN',
    ],
)
def test_json_that_is_no_record_is_refused(content: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "edits.json").write_text(content, encoding="utf-8")
    assert "are damaged" in refused(tmp_path)


@pytest.mark.parametrize(
    ("method", "size"),
    [(LoRA(), "rank"), (PromptTuning(), "length"), (PrefixTuning(projection=8), "projection")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_sizes_without_tensors_are_refused_before_they_take_memory(method: Method, size: str, tmp_path: Path) -> None:
    saved(tmp_path, "gpt2", method)
    change_record(tmp_path, method={**method.describe(), size: 10**12})  # terabytes at least
    assert f"no tensor has its {size} of 1000000000000 as a size" in refused(tmp_path)


VECTOR = "transformer.h.1.mlp.c_proj.scaling"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({VECTOR: torch.full((32,), torch.nan)}, f"'{VECTOR}' holds NaN or infinite numbers"),
        ({VECTOR: torch.full((32,), -torch.inf)}, f"'{VECTOR}' holds NaN or infinite numbers"),
        ({VECTOR: torch.ones(32, dtype=torch.int64)}, f"'{VECTOR}' is of int64, not of float32"),
        ({VECTOR: torch.ones(32, dtype=torch.bool)}, f"'{VECTOR}' is of bool, not of float32"),
        ({VECTOR: torch.ones(32).to(torch.float8_e4m3fn)}, f"'{VECTOR}' is of float8_e4m3fn"),
        ({"../../../etc/passwd": torch.ones(1)}, "'../../../etc/passwd' is no name of a parameter"),
        ({"/etc/passwd": torch.ones(1)}, "'/etc/passwd' is no name of a parameter"),
        ({"": torch.ones(1)}, "'' is no name of a parameter"),
        ({"transformer..h": torch.ones(1)}, "is no name of a parameter"),
        ({"a\nb": torch.ones(1)}, "is no name of a parameter"),
        ({"\u202egnp.exe": torch.ones(1)}, "is no name of a parameter"),
        ({"a" * 301: torch.ones(1)}, "is no name of a parameter"),
    ],
)
def test_tensors_that_cannot_have_been_learned_are_refused(
    change: dict[str, Tensor], complaint: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    rewrite({**load_file(tmp_path / "edits.safetensors"), **change}, tmp_path)
    message = refused(tmp_path)
    assert complaint in message and len(message) < 300


def test_a_pickle_by_the_name_of_safetensors_is_refused_and_not_run(tmp_path: Path) -> None:
    saved(tmp_path)
    for content in (pickle.dumps(Evil(tmp_path / "written")), b""):
        (tmp_path / "edits.safetensors").write_bytes(content)
        assert "are damaged" in refused(tmp_path)
    torch.save(Evil(tmp_path / "written"), tmp_path / "edits.safetensors")
    assert "are damaged" in refused(tmp_path)
    assert not (tmp_path / "written").exists()


def test_links_are_followed_to_files_alone(tmp_path: Path) -> None:
    real, linked = tmp_path / "real", tmp_path / "linked"
    saved(real)
    linked.mkdir()
    for name in ("edits.json", "edits.safetensors"):  # the hub's cache is made of such links
        (linked / name).symlink_to(real / name)
    read_edits(linked)
    for target in (tmp_path / "absent", linked / "edits.json", tmp_path):
        (linked / "edits.json").unlink()
        (linked / "edits.json").symlink_to(target)
        assert "holds no edits: it has no edits.json" in refused(linked)


def test_16_bits_are_read_as_32(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "edits.safetensors").items()}
    rewrite(tensors, tmp_path)
    for name, parameter in apply_edits(build("gpt2"), tmp_path).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, tensors[name.replace(".editor", "")].float())


def test_the_schema_is_documented_field_by_field() -> None:
    documented = re.findall(r"^    ``(\w+)`` +(.*?);", str(file_format.__doc__), re.MULTILINE)
    words = {"int": {int}, "text": {str}, "object": {dict}, "list of texts": {list}, "null": {type(None)}}
    assert {name: set.union(*(words[word] for word in kinds.split(" or "))) for name, kinds in documented} == {
        name: {*kinds} for name, kinds in FIELDS.items()
    }
    assert tuple(name for name, _ in documented)[:4] == ("format", "backbone", "fingerprint", "method")
    assert {*REQUIRED} == {"format", "backbone", "fingerprint", "method"}


@pytest.mark.parametrize("change", ["missing", "shape", "additional"])
def test_tensors_that_do_not_fit_are_refused(change: str, tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "edits.safetensors")
    name = "transformer.h.1.mlp.c_proj.scaling"
    if change == "missing":
        del tensors[name]
    elif change == "shape":
        tensors[name] = torch.ones(31)
    else:
        name = "transformer.h.2.mlp.c_proj.scaling"
        tensors[name] = torch.ones(32)
    rewrite(tensors, tmp_path)
    message = refused(tmp_path)
    assert "do not fit" in message and name in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"head.out_proj.weight": torch.ones(64)}, "do not fit one another"),
        ({"head.out_proj.weight": torch.ones(2, 31)}, "do not fit one another"),
        ({"head.out_proj.weight": torch.ones(2, 1_000_000)}, "do not fit one another"),
        ({"head.dense.weight": torch.ones(1)}, "do not fit one another"),
        ({"head.dense.bias": None}, "do not fit one another"),
        ({"head.more": torch.ones(1)}, "do not fit one another"),
        ({"head.out_proj.weight": torch.ones(3, 32), "head.out_proj.bias": torch.ones(3)}, "3 classes, of 2 labels"),
        ({"head.out_proj.weight": None}, "do not fit one another"),
    ],
)
def test_heads_that_do_not_fit_are_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    saved(tmp_path, "roberta")
    change_record(tmp_path, head={"pooling": "first", "hidden": True, "dropout": 0.5}, labels=["no", "yes"])
    head = {f"head.{name}": tensor for name, tensor in ClassificationHead(32, 2).state_dict().items()}
    tensors = {**load_file(tmp_path / "edits.safetensors"), **head}
    rewrite(tensors, tmp_path)
    assert torch.equal(load_head(tmp_path).out_proj.weight, head["head.out_proj.weight"])
    tensors |= change
    rewrite({key: value for key, value in tensors.items() if value is not None}, tmp_path)
    with pytest.raises(UsageError, match=complaint):
        load_head(tmp_path)
