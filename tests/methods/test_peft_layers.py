"""The methods whose layers are peft's: their guarantees, and outputs equal to peft used directly."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, VeraConfig, get_peft_model
from torch import nn

from red_lightning.adapters import save_edits
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.efficiency.preparation import prepare
from red_lightning.errors import UsageError
from red_lightning.methods import IA3, RED, AdaLoRA, LoRA, VeRA
from red_lightning.methods.peft_layers import PeftLayers
from tests.backbones_zoo import FAMILIES, build
from tests.methods.guarantees import check, output, snapshot, train

METHODS: dict[str, PeftLayers] = {
    "LoRA": LoRA(),
    "LoRA everywhere": LoRA(None, rank=2, alpha=4, dropout=0.1),
    "IA3": IA3(),
    "VeRA": VeRA(rank=16),
    "AdaLoRA": AdaLoRA(target_rank=2, initial_rank=3),
}


def randomise(parameters: dict[str, nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in parameters.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "llama"])
def test_guarantees(family: str, name: str, tmp_path: Path) -> None:
    check(METHODS[name], family, tmp_path)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["roberta", "gpt2", "t5", "llama"])
def test_bfloat16_backbone(family: str, name: str) -> None:
    model, method = build(family).bfloat16(), METHODS[name]
    before, plain = snapshot(model), output(model)
    parameters = method.apply(model)
    assert torch.equal(output(model), plain)
    train(model, parameters)
    model.to(torch.bfloat16)  # as trainer.precision bf16-true does
    assert {p.dtype for p in parameters.values()} == {p.dtype for p in model.parameters() if p.requires_grad}
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    assert output(model).dtype == torch.bfloat16
    method.detach(model)
    assert list(model.state_dict()) == list(before)
    assert torch.equal(output(model), plain)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_fold_gives_the_adapted_outputs(family: str, name: str) -> None:
    model, method = build(family), METHODS[name]
    names = list(model.state_dict())
    plain = output(model)
    parameters = method.apply(model)
    assert torch.equal(output(model), plain)
    randomise(parameters)
    adapted = output(model)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    method.fold(model)
    assert list(model.state_dict()) == names
    assert (output(model) - adapted).abs().max() < 1e-4 * adapted.abs().max()


DIRECT: dict[str, tuple[PeftLayers, Any, dict[str, dict[str, Any]]]] = {
    "LoRA": (
        LoRA(rank=4, alpha=8),
        LoraConfig,
        {
            "roberta": {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]},
            "gpt2": {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True},
            "t5": {"r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]},
            "llama": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
            "phi3": {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj"]},
            "gpt_neox": {"r": 4, "lora_alpha": 8, "target_modules": ["query_key_value"]},
        },
    ),
    "IA3": (
        IA3(),
        IA3Config,
        {
            "roberta": {
                "target_modules": r".*(key|value|\d\.output\.dense)",
                "feedforward_modules": r".*\d\.output\.dense",
            },
            "gpt2": {"fan_in_fan_out": True},
            **{family: {} for family in ("t5", "llama", "gpt_neox")},  # what peft itself chooses
        },
    ),
    "VeRA": (
        VeRA(rank=6, projection_seed=5),
        VeraConfig,
        {
            "roberta": {"r": 6, "projection_prng_key": 5, "target_modules": ["query", "value"]},
            "gpt2": {"r": 6, "projection_prng_key": 5, "target_modules": ["c_attn"], "fan_in_fan_out": True},
            "llama": {"r": 6, "projection_prng_key": 5, "target_modules": ["q_proj", "v_proj"]},
        },
    ),
    "AdaLoRA": (
        AdaLoRA(["query", "value"], target_rank=2, initial_rank=3),
        AdaLoraConfig,
        {
            "roberta": {"init_r": 3, "lora_alpha": 16, "total_step": 1, "target_modules": ["query", "value"]},
            "t5": {"init_r": 3, "lora_alpha": 16, "total_step": 1, "target_modules": ["q", "v"]},
        },
    ),
}


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name, (_, _, families) in DIRECT.items() for family in families]
)
def test_outputs_and_gradients_are_those_of_peft(name: str, family: str) -> None:
    method, config, families = DIRECT[name]
    ours, theirs = build(family), build(family)
    parameters = method.apply(ours)
    randomise(parameters)
    direct = get_peft_model(theirs, config(**families[family])).eval()
    learned = {name: p for name, p in direct.named_parameters() if p.requires_grad}
    prefix = "base_model.model."
    assert {f"{prefix}{key.replace('.editor', '.default')}" for key in parameters} == set(learned)
    for key, parameter in parameters.items():
        learned[f"{prefix}{key.replace('.editor', '.default')}"].data.copy_(parameter)
    assert torch.equal(output(ours), output(theirs))
    for model in (ours, theirs):
        extra = {"decoder_input_ids": torch.tensor([[5, 6]])} if family == "t5" else {}
        model(input_ids=torch.tensor([[7, 8]]), **extra)[0].square().mean().backward()
    for key, parameter in parameters.items():
        assert torch.equal(parameter.grad, learned[f"{prefix}{key.replace('.editor', '.default')}"].grad)


def test_first_values_follow_the_seed() -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = build("gpt2")
        torch.manual_seed(seed)
        drawn.append(LoRA().apply(model)["transformer.h.0.attn.c_attn.lora_A.editor.weight"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_dropout_follows_the_backbones_mode() -> None:
    model = build("gpt2")
    randomise(LoRA(dropout=0.5).apply(model))
    assert torch.equal(output(model), output(model))
    model.train()
    assert all(module.training for module in model.modules())


def test_copies_are_independent() -> None:
    model = build("llama")
    parameters = VeRA(rank=4).apply(model)
    twin = copy.deepcopy(model)
    randomise(parameters)
    assert not torch.allclose(output(model), output(twin), atol=1e-3)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build("llama").train()
        if checkpointing:
            prepare(model, BackboneOptions(gradient_checkpointing=True, selective_recomputation=False))
        torch.manual_seed(1)
        parameters = LoRA().apply(model)
        torch.manual_seed(2)
        model(input_ids=torch.tensor([[5, 6, 7]]))[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in parameters.items()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_layers_can_be_chosen() -> None:
    for sites in (["query"], None):
        parameters = LoRA(sites, layers=[-1]).apply(build("llama", layers=3))
        assert parameters and all(".layers.2." in name for name in parameters)


def test_every_linear_of_the_blocks() -> None:
    names = LoRA(None).targets(build("llama", layers=1))
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    block = "model.layers.0"
    assert names == [*(f"{block}.self_attn.{name}" for name in attention), *(f"{block}.mlp.{name}" for name in mlp)]


def test_edits_bear_the_names_of_peft(tmp_path: Path) -> None:
    from safetensors import safe_open

    for method, names in (
        (LoRA(["query"], layers=[0]), {"lora_A.weight", "lora_B.weight"}),
        (IA3(["key"], layers=[0]), {"ia3_l"}),
        (VeRA(["query"], layers=[0]), {"vera_lambda_b", "vera_lambda_d"}),
    ):
        model = build("llama")
        save_edits(tmp_path, method.apply(model), {})
        with safe_open(tmp_path / "edits.safetensors", "pt") as file:
            assert {name.split("_proj.")[1] for name in file.keys()} == names  # noqa: SIM118 - no mapping


@pytest.mark.parametrize(
    ("sites", "sentence"),
    [
        (["residual"], "LoRA adapts linears, but 'model.layers.0' is a LlamaDecoderLayer; choose other sites"),
        (["*.input_layernorm"], "LoRA adapts linears, but .* is a LlamaRMSNorm"),
        (["quary"], "unknown site 'quary': did you mean 'query'"),
        ([], "no sites are given"),
    ],
)
def test_sites_that_cannot_be(sites: list[str], sentence: str) -> None:
    model = build("llama")
    before = snapshot(model)
    with pytest.raises(UsageError, match=sentence):
        LoRA(sites).apply(model)
    assert list(model.state_dict()) == list(before)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("first", [LoRA(), RED()])
def test_a_second_method_is_refused(first: Any) -> None:
    model = build("gpt2")
    first.apply(model)
    with pytest.raises(UsageError, match="already; detach or merge"):
        LoRA().apply(model)


@pytest.mark.parametrize("options", [{"rank": 0}, {"dropout": 1.5}])
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"model.method.{next(iter(options))} is .*, but must"):
        LoRA(**options)


def test_peft_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, red_lightning.methods; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
