"""QLoRA on tiny 4-bit backbones: outputs equal to peft's, edits that travel, and what is refused."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.loading import BackboneOptions, find, load_encoder, load_generator
from red_lightning.errors import UsageError
from red_lightning.methods import IA3, RED, AdaLoRA, LoRA, Method, QLoRA, VeRA
from tests.backbones_zoo import build, save_backbone
from tests.methods.guarantees import output, size, snapshot, train
from tests.training import learned, make_data, make_task, make_trainer

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("quantized")
    return {family: save_backbone(family, root / family) for family in ("llama", "gpt2", "t5", "roberta")}


def load(folder: Path, quantization: Any = "nf4", dtype: Any = "float32") -> nn.Module:
    options = BackboneOptions(quantization=quantization, dtype=dtype)
    source = find(str(folder), options)
    if source.config.model_type == "roberta":
        return load_encoder(source, options, keep_pooler=False).eval()
    return load_generator(source, options).eval()


def test_count_at_the_papers_size() -> None:
    """Not quantized there: the 7B of Llama on the meta device; 64 x (inputs + outputs) of its seven linears."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig())
    block = 4 * (4096 + 4096) + 3 * (4096 + 11008)
    assert size(QLoRA().apply(model)) == 32 * 64 * block == 159_907_840


def test_a_backbone_that_is_not_quantized_is_refused() -> None:
    model = build("llama")
    before = snapshot(model)
    with pytest.raises(UsageError, match=r"QLoRA adapts .* give --model.backbone_options.quantization nf4, or choose"):
        QLoRA().apply(model)
    assert list(model.state_dict()) == list(before)


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "roberta"])
@pytest.mark.parametrize("method", [QLoRA(rank=4), RED(["attention"]), IA3(), VeRA(rank=4)])
def test_guarantees(method: Method, family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = load(folders[family], dtype="bfloat16")
    before, plain, digest = snapshot(model), output(model), fingerprint(model)
    parameters = method.apply(model)
    assert torch.equal(output(model), plain)
    first = snapshot(model)
    train(model, parameters, rate=1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, first[name])}
    assert changed and changed <= set(parameters)
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    for parameter in parameters.values():
        parameter.data += 0.1
    edited = output(model)
    assert edited.dtype == torch.bfloat16 and not torch.equal(edited, plain)
    record = {"backbone": "tiny", "commit": None, "fingerprint": digest, "quantization": "nf4"}
    save_edits(tmp_path, parameters, {**record, "method": method.describe()})
    fresh = load(folders[family], dtype="bfloat16")
    apply_edits(fresh, tmp_path)
    assert torch.equal(output(fresh), edited)
    with pytest.raises(UsageError, match="belong to another backbone: 'tiny' quantized to nf4"):
        apply_edits(load(folders[family], None), tmp_path)
    with pytest.raises(UsageError, match=r"an edit on a Linear4bit cannot be merged: .*; keep the edits beside"):
        method.fold(model)
    assert torch.equal(output(model), edited)
    method.detach(model)
    assert torch.equal(output(model), plain)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_outputs_are_those_of_peft(quantization: str, folders: dict[str, Path]) -> None:
    from peft import LoraConfig, get_peft_model

    ours, theirs = load(folders["llama"], quantization), load(folders["llama"], quantization)
    parameters = QLoRA(rank=4).apply(ours)
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear")
    direct = dict(get_peft_model(theirs, config).eval().named_parameters())
    assert len([p for p in direct.values() if p.requires_grad]) == len(parameters)
    for name, parameter in parameters.items():
        parameter.data += 0.1
        direct[f"base_model.model.{name.replace('.editor', '.default')}"].data.copy_(parameter)
    assert torch.equal(output(ours), output(theirs))


@needs_bitsandbytes
@pytest.mark.parametrize("method", [QLoRA(rank=4), IA3(), VeRA(rank=4)])
def test_8_bits(method: Method, folders: dict[str, Path]) -> None:
    model = load(folders["llama"], "int8", "bfloat16")
    plain = output(model)
    parameters = method.apply(model)
    assert torch.equal(output(model), plain)
    train(model, parameters, rate=1)
    assert all(parameter.grad is not None for parameter in parameters.values())
    assert output(model).dtype == torch.bfloat16


@needs_bitsandbytes
def test_adalora_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"which quantized linears forbid; .* choose model.method QLoRA"):
        AdaLoRA().apply(load(folders["llama"]))


@needs_bitsandbytes
def test_a_run_and_its_continuation(folders: dict[str, Path], tmp_path: Path) -> None:
    options = {
        "method": QLoRA(rank=2, dropout=0.0),
        "backbone_options": BackboneOptions(quantization="nf4", dtype="bfloat16"),
        "metrics": ["BLEU"],
    }
    task = make_task(folders["llama"], **options)
    make_trainer(tmp_path / "whole", max_epochs=2).fit(task, datamodule=make_data(tmp_path))
    assert task.size["backbone"] == sum(p.numel() for p in build("llama").parameters()) + task.size["trained"]
    make_trainer(tmp_path / "half", max_epochs=1).fit(make_task(folders["llama"], **options), make_data(tmp_path))
    checkpoint = tmp_path / "whole/checkpoints/last.ckpt"
    assert set(torch.load(checkpoint, weights_only=True)["state_dict"]) == set(learned(task))
    plain = make_task(folders["llama"], method=LoRA(None, 2), metrics=["BLEU"])
    with pytest.raises(UsageError, match=r"trained on '.*llama' quantized to nf4, whose weights are not"):
        make_trainer(tmp_path / "other").test(plain, make_data(tmp_path), ckpt_path=str(checkpoint))
