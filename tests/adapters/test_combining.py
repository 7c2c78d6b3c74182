"""Edits made of other edits: the closed forms, by plain torch on the unedited backbone."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from red_lightning.adapters import apply_edits, combine_edits, load_head, read_edits, save_edits
from red_lightning.adapters.combining import differences
from red_lightning.backbones.classification_head import ClassificationHead
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.methods import RED, SSF, BitFit, FullFineTuning, HeadOnly, LastBlocks, LoRA, Method
from tests.adapters.test_file_format import outputs
from tests.backbones_zoo import build

HEAD = {"head": {"pooling": "first", "hidden": True, "dropout": 0.5}, "labels": ["no", "yes"]}


def leave(folder: Path, seed: int, method: Method | None = None, family: str = "gpt2", **record: Any) -> Path:
    """Leave random edits of a random backbone behind, with a random head if the record has one."""
    method = method or RED()
    backbone = build(family)
    record = {"backbone": f"org/{family}", "commit": None, "fingerprint": fingerprint(backbone), **record}
    learned: dict[str, Tensor] = dict(method.apply(backbone))
    generator = torch.Generator().manual_seed(seed)
    for vector in learned.values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    if record.get("head"):
        torch.manual_seed(seed)
        head = ClassificationHead(32, len(record["labels"]))
        learned |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    save_edits(folder, learned, {**record, "method": method.describe()})
    return folder


def renamed(folder: Path, method: Method) -> Path:
    """Say of edits that they were learned with another method, whose own need slow imports or much room."""
    record = json.loads((folder / "edits.json").read_text(encoding="utf-8"))
    (folder / "edits.json").write_text(json.dumps({**record, "method": method.describe()}), encoding="utf-8")
    return folder


def tensors(folder: Path) -> dict[str, Any]:
    """The stored numbers in numpy's float64."""
    return {
        name: tensor.numpy().astype(numpy.float64) for name, tensor in load_file(folder / "edits.safetensors").items()
    }


def loaded(folder: Path, family: str = "gpt2") -> nn.Module:
    backbone = build(family)
    apply_edits(backbone, folder)
    return backbone


def hooked(edit: Callable[[str, Tensor], Tensor], names: set[str], family: str = "gpt2") -> nn.Module:
    """The unedited backbone with each module's output put through a function."""
    backbone = build(family)
    for name in names:
        module = backbone.get_submodule(name)
        module.register_forward_hook(lambda module, args, output, name=name: edit(name, output))
    return backbone


def test_weights_that_sum_to_one_interpolate(tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1), leave(tmp_path / "b", 2)
    combine_edits([a, b], tmp_path / "c", [0.3, 0.7])
    first, second, combined = tensors(a), tensors(b), tensors(tmp_path / "c")
    assert combined.keys() == first.keys()
    for name, value in combined.items():
        numpy.testing.assert_allclose(value, 0.3 * first[name] + 0.7 * second[name], rtol=1e-7)
    combine_edits([a, b], tmp_path / "mean")
    combine_edits([a, b], tmp_path / "halves", [0.5, 0.5])
    assert (tmp_path / "mean/edits.safetensors").read_bytes() == (tmp_path / "halves/edits.safetensors").read_bytes()


def test_a_weight_of_one_gives_back_the_edit_bit_for_bit(tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1), leave(tmp_path / "b", 2)
    for number, (edits, weights) in enumerate([([a, b], [1, 0]), ([b, a], [0, 1]), ([a, a], None), ([a], [1])]):
        folder = combine_edits(edits, tmp_path / str(number), weights)
        assert (folder / "edits.safetensors").read_bytes() == (a / "edits.safetensors").read_bytes()


def test_other_weights_add_up_differences_from_the_identity(tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1), leave(tmp_path / "b", 2)
    combine_edits([a, b], tmp_path / "c", [1.5, -0.25])
    first, second, combined = tensors(a), tensors(b), tensors(tmp_path / "c")
    for name, value in combined.items():
        one = float(name.endswith(".scaling"))
        wanted = one + 1.5 * (first[name] - one) - 0.25 * (second[name] - one)
        numpy.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)
    nothing = combine_edits([a], tmp_path / "none", [0])
    assert torch.equal(outputs(loaded(nothing)), outputs(build("gpt2")))


@pytest.mark.parametrize("family", ["gpt2", "t5", "roberta", "llama"])
def test_a_stack_is_one_edit_after_the_other(family: str, tmp_path: Path) -> None:
    edits = [leave(tmp_path / str(seed), seed, family=family) for seed in (1, 2, 3)]
    vectors = [read_edits(folder)[0] for folder in edits]

    def one_after_the_other(name: str, hidden: Tensor) -> Tensor:
        for stored in vectors:
            hidden = stored[f"{name}.scaling"] * hidden + stored[f"{name}.bias"]
        return hidden

    sites = {name.rpartition(".")[0] for name in vectors[0]}
    wanted = outputs(hooked(one_after_the_other, sites, family))
    stacked = outputs(loaded(combine_edits(edits, tmp_path / "stack", how="stack"), family))
    torch.testing.assert_close(stacked, wanted, rtol=1e-4, atol=1e-4)
    turned = outputs(loaded(combine_edits(edits[::-1], tmp_path / "turned", how="stack"), family))
    assert (turned - wanted).abs().max() > 0.01


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RED(["ffn"]), RED(["attention"])),
        (RED(["ffn"], layers=[0]), RED(["ffn"], layers=[1])),
        (RED(["ffn", "attention"], "bias"), RED(["ffn"], "scaling")),
        (RED(["residual"]), RED(["residual"], layers=[-1])),
        (RED(["query", "ffn"]), RED(["query"])),
    ],
    ids=["sites", "layers", "vectors", "blocks", "thirds"],
)
def test_red_of_other_sites_has_the_identity_there(first: RED, second: RED, tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1, first), leave(tmp_path / "b", 2, second)
    one, other = tensors(a), tensors(b)
    combined = combine_edits([a, b], tmp_path / "sum", [1, 1])
    loaded(combined)  # the options stand for exactly these tensors
    stored = tensors(combined)
    assert {name.rpartition(".")[0] for name in stored} == {name.rpartition(".")[0] for name in {**one, **other}}
    for name, value in stored.items():
        identity = float(name.endswith(".scaling"))
        parts = [edit[name] - identity if name in edit else numpy.zeros_like(value) for edit in (one, other)]
        numpy.testing.assert_allclose(value, identity + parts[0] + parts[1], rtol=1e-6, atol=1e-7)
    stack = tensors(combine_edits([a, b], tmp_path / "stack", how="stack"))
    for name, value in stack.items():
        module, _, vector = name.rpartition(".")
        after, shift = other.get(f"{module}.scaling", 1), other.get(f"{module}.bias", 0)
        wanted = after * one.get(name, float(vector == "scaling")) + (shift if vector == "bias" else 0)
        numpy.testing.assert_allclose(value, numpy.broadcast_to(wanted, value.shape), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", [SSF(), BitFit()], ids=["SSF", "BitFit"])
def test_other_affine_methods_are_combined_too(method: Method, tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1, method), leave(tmp_path / "b", 2, method)
    folder = combine_edits([a, b], tmp_path / "c", [0.5, 0.5])
    first, second, combined = tensors(a), tensors(b), tensors(folder)
    for name, value in combined.items():
        numpy.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-6, atol=1e-8)
    loaded(folder)
    stack = tensors(combine_edits([a, b], tmp_path / "stack", how="stack"))
    for name, value in stack.items():
        module, _, vector = name.rpartition(".")
        scaling = second.get(f"{module}.scaling", 1)
        wanted = first[name] * scaling + (second[name] if vector == "bias" else 0)
        numpy.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", [FullFineTuning(), LastBlocks()], ids=["full", "last"])
def test_trained_weights_are_averaged(method: Method, tmp_path: Path) -> None:
    a, b = leave(tmp_path / "a", 1, method), leave(tmp_path / "b", 2, method)
    models = [loaded(a), loaded(b), loaded(combine_edits([a, b], tmp_path / "c", [0.25, 0.75]))]
    for first, second, mean in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mean, 0.25 * first + 0.75 * second)
    for options in ({"weights": [1, 1]}, {"how": "stack"}):
        with pytest.raises(
            UsageError, match="weights only a mean has a meaning: use --how sum with --weights that sum"
        ):
            combine_edits([a, b], tmp_path / "d", **options)


@pytest.mark.parametrize("method", [RED(), HeadOnly()], ids=["RED", "HeadOnly"])
def test_heads_of_the_same_labels_are_averaged(method: Method, tmp_path: Path) -> None:
    a, b = (leave(tmp_path / name, ord(name), method, "roberta", **HEAD) for name in "ab")
    folder = combine_edits([a, b], tmp_path / "c", [0.25, 0.75])
    heads = [load_head(place) for place in (a, b, folder)]
    for first, second, mean in zip(*(head.parameters() for head in heads), strict=True):
        torch.testing.assert_close(mean, 0.25 * first + 0.75 * second)
    record = read_edits(folder)[1]
    assert (record["head"], record["labels"]) == (HEAD["head"], HEAD["labels"])
    loaded(folder, "roberta")
    with pytest.raises(UsageError, match="of a classification head only a mean"):
        combine_edits([a, b], tmp_path / "d", [1, 1])
    other = leave(tmp_path / "other", 3, method, "roberta", **{**HEAD, "labels": ["yes", "no"]})
    with pytest.raises(UsageError, match=r"have different labels: \['no', 'yes'\] and \['yes', 'no'\]"):
        combine_edits([a, other], tmp_path / "d")
    pooled = leave(tmp_path / "mean", 3, method, "roberta", **{**HEAD, "head": {**HEAD["head"], "pooling": "mean"}})
    with pytest.raises(UsageError, match="are not alike"):
        combine_edits([a, pooled], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_the_record_says_what_they_are_made_of(tmp_path: Path) -> None:
    shared = {"task": "DataToText", "data": {"class": "E2E", "rows": {"train": 5}}, "quantization": None}
    a = leave(tmp_path / "a", 1, RED(["ffn"]), scores={"BLEU": 0.5}, labels=None, **shared)
    b = leave(tmp_path / "runs/b/edits", 2, RED(["ffn", "attention"]), **{**shared, "data": {"class": "E2E"}})
    combine_edits([a, tmp_path / "runs/b"], tmp_path / "c", [0.5, 0.25])
    record = json.loads((tmp_path / "c/edits.json").read_text(encoding="utf-8"))
    records = [json.loads((folder / "edits.json").read_text(encoding="utf-8")) for folder in (a, b)]
    assert record["combined"] == {
        "how": "sum",
        "sources": [
            {
                "edits": str(folder),
                "commit": None,
                "weight": weight,
                "sha256": hashlib.sha256((place / "edits.safetensors").read_bytes()).hexdigest(),
                "record": source,
            }
            for folder, weight, place, source in zip(
                (a, tmp_path / "runs/b"), (0.5, 0.25), (a, b), records, strict=True
            )
        ],
    }
    assert record["method"] == {"name": "RED", "sites": ["ffn", "attention"], "vectors": "both", "layers": None}
    assert record["trainable_parameters"] == 2 * 2 * 2 * 32
    assert record["data"] == {"class": "E2E"} and record["task"] == "DataToText" and record["backbone"] == "org/gpt2"
    assert "scores" not in record


FEW = {"num_beams": 1, "repetition_penalty": 1.2, "seed": 0}


@pytest.mark.parametrize(
    ("first", "second", "differ", "kept"),
    [
        ({"decoding": FEW}, {"decoding": FEW}, [], {"decoding": FEW}),
        ({"decoding": FEW}, {"decoding": {**FEW, "num_beams": 4}}, ["decoding"], {}),
        ({"decoding": FEW}, {}, ["decoding"], {}),
        (
            {"data": {"class": "I", "template": "chat"}},
            {"data": {"class": "I", "template": "paper"}},
            ["template"],
            {"data": {"class": "I"}},
        ),
        ({"task": "DataToText"}, {"task": "InstructionTuning"}, ["task"], {}),
        ({"held_out_by": {"seed": 1, "size": 2}}, {"held_out_by": {"seed": 1, "size": 3}}, [], {}),
    ],
    ids=["same decoding", "decoding", "one decoding", "template", "task", "held out"],
)
def test_what_the_runs_do_not_share_is_left_out_whole(
    first: dict[str, Any], second: dict[str, Any], differ: list[str], kept: dict[str, Any], tmp_path: Path
) -> None:
    folder = combine_edits([leave(tmp_path / "a", 1, **first), leave(tmp_path / "b", 2, **second)], tmp_path / "c")
    record = read_edits(folder)[1]
    assert {name: record[name] for name in ("decoding", "data", "task", "held_out_by") if name in record} == kept
    assert differences(record) == differ


def test_combined_edits_can_be_combined(tmp_path: Path) -> None:
    a, b, c = (leave(tmp_path / name, ord(name)) for name in "abc")
    half = combine_edits([a, b], tmp_path / "ab")
    folder = combine_edits([half, c], tmp_path / "abc", [2 / 3, 1 / 3])
    for name, value in tensors(folder).items():
        wanted = sum(tensors(edits)[name] for edits in (a, b, c)) / 3
        numpy.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-7)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "weights": (
        lambda path: leave(path, 2, backbone="x", fingerprint="other"),
        "belong to different backbones, 'org/gpt2'",
    ),
    "layers": (lambda path: leave(path, 2, family="llama"), "belong to different backbones"),
    "method": (lambda path: leave(path, 2, SSF()), "were learned with RED and SSF"),
    "product": (lambda path: leave(path, 2, RED(["attention"], layers=[0])), "different sites and different layers"),
    "head": (lambda path: leave(path, 2, **HEAD), "have different labels: None and"),
    "columns": (
        lambda path: leave(path, 2, RED(["*.attn.c_attn"])),
        "edits other columns of 'transformer.h.0.attn.c_attn'",
    ),
    "thirds": (lambda path: leave(path, 2, RED(["key"])), r"different parts of 'transformer.h.0.attn.c_attn'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_together_is_refused(name: str, tmp_path: Path) -> None:
    make, complaint = REFUSED[name]
    a = leave(tmp_path / "a", 1, RED(["query"] if name in ("columns", "thirds") else ["ffn"]))
    with pytest.raises(UsageError, match=complaint) as caught:
        combine_edits([a, make(tmp_path / "b")], tmp_path / "c")
    assert "\n" not in str(caught.value) and not (tmp_path / "c").exists()


def test_products_of_factors_are_refused(tmp_path: Path) -> None:
    edits = [renamed(leave(tmp_path / name, 1), LoRA()) for name in "ab"]
    with pytest.raises(UsageError, match="edits of LoRA cannot be combined: the model is not linear in what it learns"):
        combine_edits(edits, tmp_path / "c")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"weights": [1.0]}, "there are 2 edits, but 1 weights"),
        ({"weights": [1.0, float("nan")]}, "weights must be finite numbers, and are 1.0, nan"),
        ({"weights": [1e39, 0.0]}, r"of the combined edits would not be finite"),
        ({"weights": [1.0, 1.0], "how": "stack"}, "stacked edits have no weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(options: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    edits = [leave(tmp_path / name, ord(name)) for name in "ab"]
    with pytest.raises(UsageError, match=complaint):
        combine_edits(edits, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    a = leave(tmp_path / "a", 1)
    before = (a / "edits.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds something already"):
        combine_edits([a], a, [0.5])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="holds something already"):
        combine_edits([a], tmp_path / "file", [0.5])
    assert (a / "edits.safetensors").read_bytes() == before
    (tmp_path / "empty").mkdir()
    combine_edits([a], tmp_path / "empty", [0.5])
