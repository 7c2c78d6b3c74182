"""The edits on disk: a round trip is exact, and what does not belong together is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from red_lightning import RED
from red_lightning.artifacts import apply_edits, read_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.methods import FullFineTuning
from red_lightning.methods.base import Method
from red_lightning.methods.red import RED_PLUS_SITES
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
    learned = method.apply(backbone)
    generator = torch.Generator().manual_seed(1)
    for vector in learned.values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    save_edits(folder, learned, {**record, "method": method.describe()})
    return backbone


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


def refused(folder: Path, backbone: nn.Module | None = None) -> str:
    """The complaint, after which the backbone is as it was."""
    backbone = backbone or build("gpt2")
    before, names = outputs(backbone), [name for name, _ in backbone.named_modules()]
    with pytest.raises(UsageError) as caught:
        apply_edits(backbone, folder)
    assert torch.equal(outputs(backbone), before)
    assert [name for name, _ in backbone.named_modules()] == names
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    for other in (build("gpt2", seed=1), build("gpt2", layers=3), build("llama")):
        assert "belong to another backbone: 'org/gpt2'" in refused(tmp_path, other)


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
        ({"format": "x"}, "are damaged"),
        ({"fingerprint": None}, "are damaged"),
        ({"method": None}, "are damaged"),
        ({"method": {"name": "REDD"}}, "unknown method 'REDD': did you mean 'RED'"),
        ({"method": {"name": "Method"}}, "unknown method 'Method'"),
        ({"method": {"name": "RED_PLUS_SITES"}}, "unknown method 'RED_PLUS_SITES'"),
        ({"method": {"name": "RED", "strength": 2}}, "are damaged"),
    ],
)
def test_records_that_make_no_sense_are_refused(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "edits.json"
    record = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}), encoding="utf-8")
    assert complaint in refused(tmp_path)


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
    save_file(tensors, tmp_path / "edits.safetensors")
    message = refused(tmp_path)
    assert "do not fit" in message and name in message
