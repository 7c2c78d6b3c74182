"""Loading a backbone from a folder: what it becomes, and one sentence for every folder that will not do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GPT2LMHeadModel,
    T5ForConditionalGeneration,
)

from red_lightning import RED
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import (
    BackboneOptions,
    find,
    load_encoder,
    load_generator,
)
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.errors import UsageError
from tests.backbones_zoo import FAMILIES, MASKED, build, save_backbone

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def load(folder: Path, **options: object) -> torch.nn.Module:
    chosen = BackboneOptions(**options)  # type: ignore[arg-type]
    return load_generator(find(str(folder), chosen), chosen)


@pytest.mark.parametrize("family", ["gpt2", "t5", "llama"])
def test_a_folder_gives_its_model_in_training_mode(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    source = find(str(folder), BackboneOptions())
    assert (source.commit, source.local_only, source.config.model_type) == (None, False, family)
    model = load(folder)
    assert all(module.training for module in model.modules())
    original = build(family).state_dict()
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert isinstance(model, {"gpt2": GPT2LMHeadModel, "t5": T5ForConditionalGeneration}.get(family, object))


def test_a_tokenizer_without_padding_pads_with_eos(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "copy")
    described = json.loads((folder / "tokenizer_config.json").read_text())
    del described["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    options = BackboneOptions()
    assert load_tokenizer(find(str(gpt2_folder), options), options).pad_token == "<pad>"
    assert load_tokenizer(find(str(folder), options), options).pad_token == "<eos>"


def test_a_config_without_a_padding_token_has_none(tmp_path: Path) -> None:
    """transformers 5.0 sets no such attribute then, but its Phi reads it."""
    folder = save_backbone("phi", tmp_path)
    config = json.loads((folder / CONFIG).read_text())
    del config["pad_token_id"]
    (folder / CONFIG).write_text(json.dumps(config))
    source = find(str(folder), BackboneOptions())
    assert source.config.pad_token_id is None
    load_generator(source, BackboneOptions())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_that_of_the_frozen_weights_only(dtype: str, gpt2_folder: Path) -> None:
    model = load(gpt2_folder, dtype=dtype)
    vectors = RED().apply(model)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {getattr(torch, dtype)}
    assert {p.dtype for p in vectors.values()} == {torch.float32}


def test_attention_is_the_chosen_one(gpt2_folder: Path) -> None:
    assert load(gpt2_folder, attention="eager").config._attn_implementation == "eager"
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(gpt2_folder, attention="nonsense")


@pytest.mark.parametrize("family", ["gpt2", "t5", "llama"])
def test_without_weights_the_shapes_are_the_same(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    options = BackboneOptions()
    model = load_generator(find(str(folder), options), options, meta=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    shapes = {name: parameter.shape for name, parameter in load(folder).named_parameters()}
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == shapes
    assert {p.shape for p in RED().apply(model).values()} == {(32,)}


@pytest.mark.parametrize("family", ["gpt2", "t5", "llama"])
def test_fingerprint_is_that_of_the_weights_in_any_dtype(family: str, tmp_path: Path) -> None:
    folder = save_backbone(family, tmp_path / "a")
    prints = {fingerprint(load(folder, dtype=dtype)) for dtype in ("float32", "bfloat16", "float16")}
    assert prints == {fingerprint(build(family))}
    others = {fingerprint(build(family, seed=seed)) for seed in range(1, 5)}
    assert len(others | prints | {fingerprint(build(family, layers=3))}) == 6


def test_fingerprint_notices_a_fine_tuned_backbone() -> None:
    """Every weight moved by a few per cent of its size."""
    model = build("gpt2")
    before = fingerprint(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn_like(parameter))
    assert fingerprint(model) != before


ENCODERS = [family for family in FAMILIES if family != "t5"]


def load_hidden(folder: Path, keep_pooler: bool = False, meta: bool = False) -> Any:
    options = BackboneOptions()
    return load_encoder(find(str(folder), options), options, keep_pooler, meta)


def hidden(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([[5, 6, 7, 8]])).last_hidden_state


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_gives_hidden_states_and_is_in_training_mode(family: str, tmp_path: Path) -> None:
    original = build(family)
    original.save_pretrained(tmp_path)  # type: ignore[operator]
    model = load_hidden(tmp_path)
    assert all(module.training for module in model.modules())
    assert not any("pooler" in name or "lm_head" in name for name, _ in model.named_parameters())
    assert getattr(model, "pooler", None) is None
    torch.testing.assert_close(hidden(model), hidden(original.base_model))
    bare = load_hidden(tmp_path, meta=True)
    assert all(parameter.is_meta for parameter in bare.parameters()) and bare.training
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert {name: parameter.shape for name, parameter in bare.named_parameters()} == shapes
    assert set(RED().apply(bare)) == set(RED().apply(model))


HEADS = [
    *[(family, AutoModelForSequenceClassification) for family in ENCODERS],
    *[(family, AutoModelForMaskedLM if family in MASKED else AutoModelForCausalLM) for family in ENCODERS],
]


@pytest.mark.parametrize(("family", "auto"), HEADS)
def test_checkpoints_with_a_head_load_without_it(family: str, auto: Any, tmp_path: Path) -> None:
    """Their parameters' names have a prefix, such as ``bert.``."""
    torch.manual_seed(1)
    headed = auto.from_config(build(family).config)
    headed.save_pretrained(tmp_path)
    model = load_hidden(tmp_path)
    assert type(model) is type(headed.base_model)
    torch.testing.assert_close(hidden(model), hidden(headed.base_model))


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_pooler_is_kept_where_it_is_wanted(family: str, tmp_path: Path) -> None:
    original = build(family)
    original.save_pretrained(tmp_path)  # type: ignore[operator]
    model = load_hidden(tmp_path, keep_pooler=True)
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in model.state_dict().items())
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(model.eval()(ids).pooler_output, original(ids).pooler_output)
    assert isinstance(load_hidden(tmp_path, keep_pooler=True, meta=True).pooler, nn.Module)
    assert load_hidden(tmp_path).eval()(ids).pooler_output is None


@pytest.mark.parametrize("family", ["roberta", "bert", "albert"])
def test_a_pooler_without_weights_is_refused_where_it_is_wanted(family: str, tmp_path: Path) -> None:
    AutoModelForMaskedLM.from_config(build(family).config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"has no pretrained pooler; choose model\.head\.pooling"):
        load_hidden(tmp_path, keep_pooler=True)
    assert load_hidden(tmp_path).pooler is None


def test_an_encoder_is_refused_for_any_other_missing_weight(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "copy")
    without_tensor(folder)
    with pytest.raises(UsageError, match=r"GPT2Model: 'h\.0\.mlp\.c_proj\.bias' is missing"):
        load_hidden(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="cannot be loaded: Error no file named"):
        load_hidden(folder)


@pytest.mark.parametrize("meta", [False, True])
def test_an_encoder_decoder_has_no_hidden_states_to_give(meta: bool, t5_folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_hidden(t5_folder, meta=meta)
    assert str(caught.value) == (
        f"the backbone '{t5_folder}' is an encoder-decoder (t5), which has no single representation of a text; "
        "use TextToTextClassification"
    )


def test_an_encoder_still_cannot_write(tmp_path: Path) -> None:
    build("modernbert").save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"is an encoder \(modernbert\) and cannot write text"):
        load(tmp_path)


def test_modernbert_is_never_compiled(tmp_path: Path) -> None:
    """Compiled code goes on as before where a hook is attached or removed; transformers 5.0 compiles on a GPU."""
    build("modernbert").save_pretrained(tmp_path)  # type: ignore[operator]
    assert getattr(load_hidden(tmp_path).config, "reference_compile", False) is False


def without_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["transformer.h.0.mlp.c_proj.bias"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def other_width(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "n_embd": 64}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no model": (lambda folder: (folder / CONFIG).unlink(), "holds no model: it has no config.json"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded: Error no file named"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "cannot be loaded"),
    "cut weights": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000]),
        "cannot be loaded",
    ),
    "a missing tensor": (without_tensor, "'transformer.h.0.mlp.c_proj.bias' is missing or of another shape"),
    "another width": (other_width, "do not fit its architecture GPT2LMHeadModel"),
    "malformed config": (lambda folder: (folder / CONFIG).write_text("{"), "configuration of the backbone"),
    "a config that is a list": (lambda folder: (folder / CONFIG).write_text("[1]"), "configuration of the backbone"),
    "no model type": (lambda folder: (folder / CONFIG).write_text("{}"), "configuration of the backbone"),
    "an unknown model type": (
        lambda folder: (folder / CONFIG).write_text('{"model_type": "zzz"}'),
        "configuration of the backbone",
    ),
    "no tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "has no usable tokenizer",
    ),
    "malformed tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "has no usable tokenizer"),
    "no EOS": (
        lambda folder: (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}'),
        "has no EOS token",
    ),
    "an EOS beyond the embedding": (
        lambda folder: (folder / "tokenizer_config.json").write_text("{}"),  # GPT-2's, which is none of these tokens
        "has no EOS token",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_folders_that_will_not_do(damage: str, gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "damaged")
    break_it, complaint = DAMAGE[damage]
    break_it(folder)
    options = BackboneOptions()
    with pytest.raises(UsageError) as caught:
        source = find(str(folder), options)
        load_tokenizer(source, options)
        load_generator(source, options)
    message = str(caught.value)
    assert complaint in message and str(folder) in message and "\n" not in message


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_no_tokenizer_of_another_family(family: str, tmp_path: Path) -> None:
    """For some families transformers makes up an empty one."""
    build(family).save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match="has no usable tokenizer"):
        load_tokenizer(find(str(tmp_path), BackboneOptions()), BackboneOptions())


@pytest.mark.parametrize("name", ["/absent/folder", "./absent", "../absent", "~/absent-folder", "a/b/c"])
def test_folders_that_are_not_there(name: str) -> None:
    with pytest.raises(UsageError, match=f"the folder '{name}' does not exist"):
        find(name, BackboneOptions())
