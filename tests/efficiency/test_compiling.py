"""Compiled blocks compute what plain ones do, whatever comes to them and goes from them later."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning import RED
from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.backbones.sharded_loading import load_sharded
from red_lightning.backbones.sharding import blocks, is_compiled
from red_lightning.editing.surgery import detach
from red_lightning.editing.unedited import unedited
from red_lightning.efficiency import compiling
from red_lightning.efficiency.compiling import compile_blocks
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.preparation import prepare, prepared
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.errors import UsageError
from red_lightning.methods import LoRA
from tests.backbones_zoo import VOCABULARY, build

SLOW = ["llama", "bert", "t5"]
FAMILIES = ["gpt2", *SLOW]


class Seen:
    """A backend that runs what it is given as it is, and counts it."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any, **options: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    torch.compiler.reset()
    backend = Seen()
    monkeypatch.setattr(compiling, "BACKEND", backend)
    return backend


def pair(family: str, change: Any = None) -> tuple[Any, Any]:
    """A compiled model and a plain one, frozen and without dropout, in training mode."""
    models: list[Any] = []
    for compiled in (True, False):
        model: Any = build(family, dropout=0.0).requires_grad_(False).train()
        if family == "bert":
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        if change is not None:
            change(model)
        if compiled:
            compile_blocks(model)
        models.append(model)
    return models[0], models[1]


def edit(models: Sequence[nn.Module], sites: list[str], seed: int = 0) -> None:
    """Attach editors with random vectors."""
    for model in models:
        RED(sites).apply(model)
    shake(models, seed)


def shake(models: Sequence[nn.Module], seed: int) -> None:
    """Change what trains at random, alike."""
    for model in models:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def inputs_of(model: Any, rows: int = 3, tokens: int = 9, padded: bool = True) -> dict[str, Any]:
    """Rows of which the first is shorter."""
    generator = torch.Generator().manual_seed(rows + tokens)
    ids = torch.randint(2, VOCABULARY, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, -2:] = 0
    decoder = {"decoder_input_ids": ids[:, : tokens // 2 + 1]} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False, **decoder}


def result(model: Any, inputs: dict[str, Any]) -> list[Tensor]:
    """The outputs, and the gradients of what trains."""
    output = model(**inputs)
    output = output.logits if "logits" in output else output.last_hidden_state
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not (parameters and torch.is_grad_enabled()):
        return [output]
    return [output, *torch.autograd.grad(output.float().pow(2).mean(), parameters)]


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative difference of a tensor's norm."""
    pairs = zip(found, expected, strict=True)
    return max(((own.double() - other).norm() / other.double().norm()).item() for own, other in pairs)


def require_equal(models: Sequence[Any], **options: Any) -> None:
    inputs = inputs_of(models[1], **options)
    assert worst(result(models[0], inputs), result(models[1], inputs)) < 1e-6


@pytest.mark.parametrize("family", ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_editors_come_and_go(family: str, seen: Seen) -> None:
    """Hooks that are attached to a block after its first call, or to what is in it, are not forgotten, nor kept."""
    models = pair(family)
    assert is_compiled(models[0]) and not is_compiled(models[1])
    require_equal(models)
    assert seen.graphs
    edit(models, ["ffn"])
    require_equal(models)
    for tokens in (4, 17, 2):
        require_equal(models, tokens=tokens, padded=tokens > 3)
    graphs = seen.graphs
    for rows in (2, 5):
        require_equal(models, rows=rows, tokens=11 + rows)
    shake(models, 1)
    require_equal(models)
    assert seen.graphs == graphs  # for any size, and any vectors
    with torch.no_grad():
        require_equal([model.eval() for model in models])
    for model in models:
        detach(model)
    with torch.no_grad():
        require_equal(models)
    edit([model.train() for model in models], ["residual", "attention"], 2)
    require_equal(models)


@pytest.mark.skipif(torch.__version__.startswith("2.7."), reason="torch 2.7 compiles each block by itself")
def test_blocks_that_are_alike_share_kernels(seen: Seen) -> None:
    """The first block differs from the others: no gradient goes on from it."""
    counts = []
    for layers in (2, 5):
        torch.compiler.reset()
        model: Any = build("llama", layers=layers, dropout=0.0)
        compile_blocks(model)
        edit([model], ["ffn"])
        before = seen.graphs
        result(model, inputs_of(model))
        counts.append(seen.graphs - before)
    assert counts == [2, 2]


@pytest.mark.parametrize("change", ["checkpointing", "recomputing"])
@pytest.mark.parametrize("family", ["gpt2", pytest.param("t5", marks=pytest.mark.slow)])
def test_with_what_keeps_less(family: str, change: str, seen: Seen) -> None:
    def keep_less(model: Any) -> None:
        if change == "recomputing":
            recompute_selectively(model, always=True)
        else:
            prepare(model, BackboneOptions(gradient_checkpointing=True, selective_recomputation=False))

    models = pair(family, keep_less)
    edit(models, ["ffn"])
    require_equal(models)
    assert seen.graphs


@pytest.mark.slow
def test_lora(seen: Seen) -> None:
    models = pair("llama")
    for model in models:
        torch.manual_seed(0)
        LoRA(dropout=0.0).apply(model)
    shake(models, 0)
    require_equal(models)
    assert seen.graphs


def test_copies_and_decoding_are_plain(seen: Seen) -> None:
    """A copy of a compiled model is another model; a pass that fills a cache computes no kernels, nor do its errors."""
    models = pair("llama")
    edit(models, ["ffn"])
    require_equal(models)
    graphs = seen.graphs
    copies = [deepcopy(model) for model in models]
    shake(copies, 4)
    require_equal(copies)
    require_equal(models)
    prompt = inputs_of(models[0], tokens=5, padded=False)["input_ids"]
    texts = [model.eval().generate(prompt, max_new_tokens=4, do_sample=False, eos_token_id=-1) for model in models]
    assert torch.equal(texts[0], texts[1])
    with pytest.raises(ValueError, match="exactly one"):
        models[0](use_cache=True)
    assert seen.graphs == graphs
    with torch.no_grad():
        require_equal(models)
    assert seen.graphs > graphs


def test_the_loss_at_labels(seen: Seen) -> None:
    models = pair("gpt2")
    edit(models, ["ffn"])
    inputs = inputs_of(models[0])
    losses = [label_losses(model, inputs["input_ids"], **inputs) for model in models]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)
    gradients = [
        torch.autograd.grad(own.sum(), [p for p in model.parameters() if p.requires_grad])
        for own, model in zip(losses, models, strict=True)
    ]
    assert worst(*gradients) < 1e-6


def test_the_option(seen: Seen, llama_folder: Path) -> None:
    options = BackboneOptions(compile=True)
    source: Any = find(str(llama_folder), options)
    model: Any = prepared(load_generator, source, options)
    assert is_compiled(model)
    assert not is_compiled(prepared(load_generator, source, options, meta=True))  # to count parameters
    with torch.no_grad():
        plain = load_generator(source, BackboneOptions())
        require_equal([model.eval(), plain.eval()])
    assert seen.graphs and not set(model.state_dict()) ^ set(plain.state_dict())
    for divide in (lambda: blocks(model), lambda: load_sharded(None, source, options, None, None)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="a compiled backbone cannot be sharded"):
            divide()


def test_what_is_missing_is_named(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = BackboneOptions(compile=True)
    source = find(str(llama_folder), options)
    for compiler in ("no-such-compiler", "false"):  # of which the second is there, and fails
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(UsageError, match=rf"compile needs a C\+\+ compiler .* but '{compiler}' cannot"):
            prepared(load_generator, source, options)
    model: Any = build("llama")
    model.config.model_type = "unheard_of"
    with pytest.raises(UsageError, match="'unheard_of' has no record of what its blocks are called"):
        compile_blocks(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_lose_no_more_than_plain_operations(family: str) -> None:
    """Of what is true, which is computed in float64: inductor adds in another order."""
    torch.compiler.reset()
    models = pair(family)
    edit(models, ["ffn"])
    for tokens in (9, 6, 20):
        inputs = inputs_of(models[1], tokens=tokens)
        truth = result(deepcopy(models[1]).double(), inputs)
        plain, compiled = result(models[1], inputs), result(models[0], inputs)
        assert worst(compiled, truth) < 1e-6 + 4 * worst(plain, truth) < 1e-3
        assert worst(compiled[:1], plain[:1]) < 1e-5
    detach(models[0])
    detach(models[1])
    with torch.no_grad():
        inputs = inputs_of(models[1], tokens=8)
        assert worst(result(models[0], inputs), result(models[1], inputs)) < 1e-5


def test_edits_are_switched_off_and_on_again(seen: Seen) -> None:
    models = pair("llama")
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = models[1](ids, use_cache=False).logits
    edit(models, ["ffn"])
    edited = models[1](ids, use_cache=False).logits
    assert not torch.equal(plain, edited)
    for _ in range(2):
        torch.testing.assert_close(models[0](ids, use_cache=False).logits, edited)
        with unedited(models[0]):
            torch.testing.assert_close(models[0](ids, use_cache=False).logits, plain)
    assert 0 < seen.graphs <= 4
