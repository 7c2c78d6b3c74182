"""The authors' released files: what is read, on which model it fits, and what is refused."""

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaModel, T5Config, T5ForConditionalGeneration

from red_lightning.adapters.released_files import LARGEST, attach_vectors, read_classifier, read_vectors
from red_lightning.errors import UsageError
from tests.backbones_zoo import build

LAYER = "transformer.h.{}.mlp.c_proj.delta_vector.activation_{}"


def file_of(folder: Path, content: Any, name: str = "delta_vector.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def vectors_of(backbone: nn.Module, modules: list[str], kinds: tuple[str, ...] = ("scaling", "bias")) -> dict[str, Any]:
    """What the authors' code would save for some edited modules of a backbone."""
    generator = torch.Generator().manual_seed(5)
    saved = {}
    for name in modules:
        module = backbone.get_submodule(name)
        width = module.weight.shape[1 if type(module).__name__ == "Conv1D" else 0]
        for kind in kinds:
            start = 1.0 if kind == "scaling" else 0.0
            vector = start + 0.3 * torch.randn(1, width, generator=generator)
            saved[f"{name}.delta_vector.activation_{kind}"] = vector
    return saved


def gpt2_file(folder: Path, **changes: Any) -> Path:
    """Vectors of the zoo's GPT-2 as the authors save them, some of them changed or (None) left out."""
    saved = vectors_of(build("gpt2"), [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)])
    saved.update({key.replace("/", "."): value for key, value in changes.items()})
    return file_of(folder, {key: value for key, value in saved.items() if value is not None})


def attach(backbone: nn.Module, file: Path, layers: list[int] | None = None) -> dict[str, nn.Parameter]:
    return attach_vectors(backbone, read_vectors(file), file, layers)[1]


def refusal(file: Path, family: str = "gpt2", layers: list[int] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        attach(build(family), file, layers)
    message = str(caught.value)
    assert "\n" not in message and str(file) in message
    return message


def by_hooks(backbone: nn.Module, saved: dict[str, Tensor]) -> None:
    """Edit in plain torch what a file says: multiply, then add."""

    def edit(scaling: Tensor, bias: Tensor) -> Any:
        return lambda module, args, output: output * scaling.float() + bias.float()

    for key, scaling in saved.items():
        if key.endswith("scaling"):
            bias = saved[key.replace("scaling", "bias")]
            module = backbone.get_submodule(key.split(".delta_vector")[0])
            module.register_forward_hook(edit(scaling, bias))


def outputs(backbone: nn.Module) -> Tensor:
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    extra = {"decoder_input_ids": tokens} if backbone.config.is_encoder_decoder else {}
    with torch.no_grad():
        return backbone(input_ids=tokens, **extra)[0]


# the sizes that matter are the true ones; what lies between is thin, so that it is quick
WIDE = {
    "roberta_base_mnli": lambda: RobertaModel(
        RobertaConfig(vocab_size=50, intermediate_size=8, max_position_embeddings=20), add_pooling_layer=False
    ),
    "t5_base_mnli": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=768, d_kv=4, num_heads=1, d_ff=8, num_layers=12)
    ),
    "gpt2_medium": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=20, n_embd=1024, n_layer=24, n_head=1, n_inner=8)
    ),
}
SITE = {
    "roberta_base_mnli": "encoder.layer.{}.output.dense",
    "t5_base_mnli": "encoder.block.{}.layer.1.DenseReluDense.wo",
    "gpt2_medium": "transformer.h.{}.mlp.c_proj",
}


@pytest.mark.parametrize("name", WIDE)
def test_the_released_files_edit_models_of_their_sizes(name: str, shared: Path) -> None:
    file = shared / "authors" / name / "delta_vector.pth"
    saved = torch.load(file, map_location="cpu", weights_only=True)
    torch.manual_seed(0)
    backbone = WIDE[name]().eval()
    parameters = attach(backbone, file)
    assert sum(p.numel() for p in parameters.values()) == sum(v.numel() for v in saved.values())
    for key, value in saved.items():  # exact, at the very module
        module, vector = key.split(".delta_vector.activation_")
        assert torch.equal(backbone.get_submodule(module).get_submodule("editor").get_parameter(vector), value[0])
    ours = outputs(backbone)
    layers = backbone.config.num_hidden_layers
    for layer in (0, layers - 1):
        assert (saved[f"{SITE[name].format(layer)}.delta_vector.activation_bias"] != 0).any()
    for module in backbone.modules():
        module._forward_hooks.clear()
    unedited = outputs(backbone)
    by_hooks(backbone, saved)
    torch.testing.assert_close(ours, outputs(backbone), atol=2e-5, rtol=1e-5)
    assert (ours - unedited).abs().max() > 1e-2


def test_the_released_classifier(shared: Path) -> None:
    file = shared / "authors/roberta_base_mnli/classifier.pth"
    weights, saved = read_classifier(file, 768), torch.load(file, map_location="cpu", weights_only=True)
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        "dense.weight": (768, 768),
        "dense.bias": (768,),
        "out_proj.weight": (3, 768),
        "out_proj.bias": (3,),
    }
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.items())
    with pytest.raises(UsageError, match=r"fits no backbone of width 32: dense.weight has the shape \(768, 768\)"):
        read_classifier(file, 32)


@pytest.mark.parametrize("prefix", ["", "base_model.", "module.base_model.", "base_model.model."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prefixes_and_dtypes_do_not_count(prefix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    saved = vectors_of(build("llama"), [f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)])
    saved = {f"{prefix}{key}": nn.Parameter(value.to(dtype)) for key, value in saved.items()}
    with patch("torch.serialization.location_tag", return_value="cuda:0"):  # as the authors' were
        file = file_of(tmp_path, OrderedDict(saved))
    backbone = build("llama")
    parameters = attach(backbone, file)
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    assert len(parameters) == 4
    for name, parameter in parameters.items():
        module, vector = name.split(".editor.")
        assert torch.equal(parameter, saved[f"{prefix}{module}.delta_vector.activation_{vector}"][0].float())


def test_a_decoder_without_its_prefix_and_the_other_way(tmp_path: Path) -> None:
    saved = vectors_of(build("gpt2"), [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)])
    bare = {key.removeprefix("transformer."): value for key, value in saved.items()}
    assert set(attach(build("gpt2"), file_of(tmp_path, bare))) == set(attach(build("gpt2"), file_of(tmp_path, saved)))
    assert all(name.startswith("h.") for name in attach(build("gpt2").base_model, file_of(tmp_path, saved)))


PLUS = {
    "gpt2": ["transformer.h.{}.attn.c_attn", "transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"],
    "roberta": [
        *(f"encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")),
        "encoder.layer.{}.attention.output.dense",
        "encoder.layer.{}.output.dense",
    ],
}


@pytest.mark.parametrize("family", PLUS)
def test_red_plus(family: str, tmp_path: Path) -> None:
    backbone, plain = build(family), build(family)
    saved = vectors_of(plain, [name.format(layer) for layer in (0, 1) for name in PLUS[family]])
    file = file_of(tmp_path, saved)
    method, parameters = attach_vectors(backbone, read_vectors(file), file)
    assert method.describe() == {
        "name": "RED",
        "sites": ["query", "key", "value", "attention", "ffn"],
        "vectors": "both",
        "layers": None,
    }
    assert len(parameters) == len(saved)
    if family == "gpt2":
        assert parameters["transformer.h.0.attn.c_attn.editor.scaling"].shape == (96,)
    by_hooks(plain, saved)
    torch.testing.assert_close(outputs(backbone), outputs(plain), atol=1e-5, rtol=1e-5)


def test_edits_after_residual_and_norm(tmp_path: Path) -> None:
    """The authors' res_with_attn: the outputs of both halves of a block."""
    backbone, plain = build("roberta"), build("roberta")
    names = [f"encoder.layer.{layer}.{half}" for layer in (0, 1) for half in ("attention.output", "output")]
    saved = vectors_of(plain, [f"{name}.LayerNorm" for name in names])
    saved = {key.replace(".LayerNorm", ""): value for key, value in saved.items()}
    assert len(attach(backbone, file_of(tmp_path, saved))) == 8
    by_hooks(plain, saved)
    torch.testing.assert_close(outputs(backbone), outputs(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["scaling", "bias"])
def test_one_vector_in_some_layers(kind: str, tmp_path: Path) -> None:
    saved = vectors_of(build("llama", layers=4), [f"model.layers.{layer}.mlp.down_proj" for layer in (2, 3)], (kind,))
    file = file_of(tmp_path, saved)
    with pytest.raises(UsageError, match=r"it edits 2 of 4 layers; .* give --layers '\[2, 3\]'"):
        attach(build("llama", layers=4), file)
    method, parameters = attach_vectors(build("llama", layers=4), read_vectors(file), file, [2, 3])
    assert method.describe() == {"name": "RED", "sites": ["ffn"], "vectors": kind, "layers": [2, 3]}
    assert len(parameters) == 2
    with pytest.raises(UsageError, match=r"edits 'layers.3.*', which is in none of the layers \[2\]"):
        attach(build("llama", layers=4), file, [2])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({LAYER.format(1, "bias"): None}, r"lacks 'h.1.mlp.c_proj.bias' and is not whole"),
        ({LAYER.format(1, "bias"): torch.zeros(1, 31)}, r"has the shape \(1, 31\), but its site is 32 wide"),
        ({LAYER.format(1, "bias"): torch.zeros(2, 32)}, r"has the shape \(2, 32\)"),
        ({LAYER.format(1, "bias"): torch.zeros(1, 32).int()}, "is of int32, not of float32"),
        ({LAYER.format(1, "bias"): torch.zeros(1, 32) * 1j}, "is of complex64"),
        ({LAYER.format(1, "bias"): torch.full((1, 32), float("nan"))}, "holds NaN or infinite"),
        ({LAYER.format(1, "scaling"): torch.full((1, 32), float("inf"))}, "holds NaN or infinite"),
        ({LAYER.format(1, "scaling"): torch.ones(1).expand(1 << 20, 1 << 20)}, "is no tensor of vectors"),
        ({LAYER.format(1, "scaling"): torch.ones(1, 32).to_sparse()}, "is no tensor of vectors"),
        ({LAYER.format(1, "scaling"): [1.0] * 32}, "is no tensor of vectors"),
        ({LAYER.format(2, "bias"): torch.zeros(1, 32)}, r"edits 'transformer.h.2.mlp.c_proj', where that has no site"),
        ({"x." + LAYER.format(1, "bias"): torch.zeros(1, 32)}, "which it has twice"),
        ({"transformer.h.0.ln_1.weight": torch.ones(32)}, "which is no editing vector"),
        ({"../../" + LAYER.format(0, "bias"): torch.ones(1, 32)}, "which is no editing vector"),
        ({LAYER.format(0, "ln") + ".weight": torch.ones(32)}, "layer_type ln"),
    ],
)  # fmt: skip
def test_vectors_that_do_not_fit(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    saved = vectors_of(build("gpt2"), [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)]) | change
    message = refusal(file_of(tmp_path, {key: value for key, value in saved.items() if value is not None}))
    assert re.search(complaint, message), message


def test_another_models_file(tmp_path: Path) -> None:
    file = gpt2_file(tmp_path)
    for family in ("llama", "roberta", "t5"):
        assert "is not of this" in refusal(file, family)
    assert "is not of this GPT-2 of 2 layers" in refusal(
        file_of(tmp_path, vectors_of(build("llama"), ["model.layers.0.mlp.down_proj"]))
    )


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


REFUSED = r"is refused: it asks for '\S+', which tensors do not need and which could run code"


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "vector"])
def test_pickles_that_run_code_are_refused_and_not_run(how: str, tmp_path: Path) -> None:
    target, file = tmp_path / "written", tmp_path / "delta_vector.pth"
    good = vectors_of(build("gpt2"), ["transformer.h.0.mlp.c_proj"])
    evil = Evil(target) if how != "vector" else {**good, LAYER.format(1, "bias"): Evil(target)}
    if how == "pickle":
        file.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, file, _use_new_zipfile_serialization=how != "legacy")
    for read in (read_vectors, lambda path: read_classifier(path, 32)):
        with pytest.raises(UsageError, match=REFUSED if how != "pickle" else "no file of tensors alone") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target)))  # it would have
    assert target.exists()


def test_files_that_are_no_such_files(tmp_path: Path) -> None:
    file = tmp_path / "delta_vector.pth"
    whole = gpt2_file(tmp_path).read_bytes()
    for content in (b"", b"text", whole[:100], whole[:-30], b"\x80\x02" + bytes(100), pickle.dumps({"a": 1}, 5)[:-1]):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is damaged, or no file of tensors alone") as caught:
            read_vectors(file)
        assert "\n" not in str(caught.value)
    for content, complaint in (
        ([1, 2], "holds no tensors by name, but a list"),
        ({1: torch.ones(1)}, "holds no tensors by name"),
        ({}, "holds no editing vectors"),
        (torch.ones(3), "holds no tensors by name, but a Tensor"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_vectors(file_of(tmp_path, content))
    for name, complaint in (("absent.pth", "does not exist"), (".", "is a folder; give the file in it")):
        with pytest.raises(UsageError, match=complaint):
            read_vectors(tmp_path / name)


def test_a_packed_file_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "delta_vector.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        zeros = bytes(1 << 24)
        for number in range(LARGEST // len(zeros) + 1):
            info = zipfile.ZipInfo(f"archive/data/{number}")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, zeros if number == 0 else b"")
            archive.filelist[-1].file_size = len(zeros)
    with pytest.raises(UsageError, match="too many for editing vectors"):
        read_vectors(file)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dense.bias": None}, "it lacks dense.bias"),
        ({"out_proj.bias": None}, "it lacks out_proj.bias"),
        ({"out_proj.weight": torch.ones(2, 32)}, r"out_proj.bias has the shape \(3,\), not \(2,\)"),
        ({"dense.bias": torch.full((32,), torch.inf)}, "NaN or infinite"),
        ({"pooler.weight": torch.ones(3)}, "no part of a classifier"),
        ({"classifier.dense.bias": torch.ones(32)}, "no part of a classifier"),
    ],
)
def test_classifiers_that_do_not_fit(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    head = {
        "dense.weight": torch.ones(32, 32),
        "dense.bias": torch.ones(32),
        "out_proj.weight": torch.ones(3, 32),
        "out_proj.bias": torch.ones(3),
    }
    prefixed = {f"classifier.{name}": tensor.bfloat16() for name, tensor in head.items()}
    read = read_classifier(file_of(tmp_path, prefixed, "classifier.pth"), 32)
    assert all(torch.equal(read[name], tensor) for name, tensor in head.items())
    content = {name: tensor for name, tensor in {**head, **change}.items() if tensor is not None}
    with pytest.raises(UsageError, match=complaint):
        read_classifier(file_of(tmp_path, content, "classifier.pth"), 32)
