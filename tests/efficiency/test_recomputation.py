"""Selective recomputation against the same models without it: loss, gradients, and what is kept."""

import copy
import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from red_lightning.backbones.loading import BackboneOptions, find, load_encoder, load_generator
from red_lightning.benchmark.memory import new_storages, saved_bytes
from red_lightning.compat.new_tensors import tensors_in
from red_lightning.editing.structure import structure_changed
from red_lightning.efficiency import verification
from red_lightning.efficiency.kept_tensors import MOST_OPERATIONS, ForwardPass, Kept, Rebuilt
from red_lightning.efficiency.preparation import prepared
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.efficiency.recomputed_operations import RULES, note_epsilon
from red_lightning.efficiency.verification import FastPathWarning
from red_lightning.methods import (
    IA3,
    RED,
    SSF,
    Adapter,
    BitFit,
    FullFineTuning,
    LoRA,
    LoReFT,
    PrefixTuning,
    PromptTuning,
)
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import FAMILIES, build, save_backbone
from tests.sequences import randomise

IDS = torch.randint(2, 300, (2, 48), generator=torch.Generator().manual_seed(0))
PARALLEL = ("gpt_neox", "phi")
"""Families that add attention and FFN to the residual stream at once, so that it cannot be had from what is kept."""
SPELLED_OUT = ("albert", "gpt2", "phi")
"""Families whose GELU is spelled out."""


def loss(model: Any, ids: Tensor = IDS) -> Tensor:
    """A loss with a gradient in every column, that keeps nothing as large as the logits."""
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    output = model(input_ids=ids, **extra)[0].float()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return (output * weights).mean()


def step(model: nn.Module, compute: Callable[[Any], Tensor] = loss) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the gradient of each parameter that trains."""
    torch.manual_seed(5)  # of dropout
    value = compute(model)
    return value.detach(), list(torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad]))


def kept(model: nn.Module) -> int:
    loss(model)  # compares, once
    return saved_bytes(lambda: loss(model), model)


def distance(ours: list[Tensor], plain: list[Tensor]) -> float:
    a, b = (torch.cat([g.flatten().double() for g in gradients]) for gradients in (ours, plain))
    return float((a - b).norm() / b.norm())


def pair(
    family: str,
    dtype: torch.dtype = torch.float32,
    method: Any = None,
    dropout: float = 0.1,
    layers: int = 3,
    scale: float = 0.3,
) -> tuple[nn.Module, nn.Module]:
    """Two equal models in training mode, the first with selective recomputation."""
    plain = build(family, layers=layers, dropout=dropout).to(dtype)
    ours = copy.deepcopy(plain)
    recompute_selectively(ours, always=True)
    for model in (ours, plain):
        torch.manual_seed(2)
        randomise((method or RED()).apply(model), scale)
        model.train()
    return ours, plain


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_plain_ones(family: str) -> None:
    ours, plain = (step(model) for model in pair(family))
    assert torch.equal(ours[0], plain[0])
    assert distance(ours[1], plain[1]) <= (1e-6 if family in SPELLED_OUT else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_plain_ones_in_bfloat16(family: str) -> None:
    # a spelled-out GELU rounds each of its steps to 8 bits, which the closed form of its gradient does not
    ours, plain = (step(model) for model in pair(family, torch.bfloat16))
    assert torch.equal(ours[0], plain[0])
    assert distance(ours[1], plain[1]) <= (1e-2 if family in SPELLED_OUT else 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_cost_one_tensor_per_model(family: str, dtype: torch.dtype) -> None:
    layers = 4
    model = build(family, layers=layers, dropout=0.0).to(dtype).train()
    floor = copy.deepcopy(model)
    RED(vectors="bias", layers=None if family == "albert" else [0]).apply(floor)  # ALBERT's layers are one
    plain_floor = copy.deepcopy(floor)
    recompute_selectively(floor, always=True)
    RED().apply(model)
    plain = copy.deepcopy(model)
    recompute_selectively(model, always=True)
    ours, plainly, least, plain_least = map(kept, (model, plain, floor, plain_floor))
    tensor = IDS.numel() * 32 * dtype.itemsize
    stacks = 2 if family == "t5" else 1
    assert plainly - plain_least == layers * stacks * tensor  # what is to be mended
    if family in PARALLEL:
        assert ours - least == layers * tensor
    else:
        assert ours - least <= stacks * tensor
        assert ours <= plain_least + stacks * tensor


@pytest.mark.parametrize("sites", [RED_PLUS_SITES, ["residual"], ["attention"]])
@pytest.mark.parametrize("vectors", ["both", "scaling", "bias"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta", "t5"])
def test_other_sites_and_vectors(family: str, vectors: str, sites: list[str]) -> None:
    models = pair(family, method=RED(sites, vectors), dropout=0.0)  # type: ignore[arg-type]
    ours, plain = (step(model) for model in models)
    assert torch.equal(ours[0], plain[0]) and distance(ours[1], plain[1]) <= 1e-6
    assert kept(models[0]) <= kept(models[1])


METHODS = [
    LoRA(),
    IA3(),
    SSF(),
    Adapter(),
    BitFit(add_biases=True),
    FullFineTuning(),
    LoReFT(),
    PrefixTuning(4),
    PromptTuning(4),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_method(family: str, method: Any) -> None:
    models = pair(family, method=method, scale=0.02)
    ours, plain = (step(model) for model in models)
    assert torch.equal(ours[0], plain[0]) and distance(ours[1], plain[1]) <= 1e-6
    assert kept(models[0]) <= kept(models[1])


def test_no_chain_of_residuals_grows_with_the_depth() -> None:
    bias = torch.ones(8, requires_grad=True)
    hidden = torch.randn(4, 8)
    forward = ForwardPass(nn.Identity())
    for _ in range(30):
        hidden = torch.nn.functional.silu(hidden + bias)
    numbers = [packed.operations for packed in forward.known.values()]
    forward.end()
    assert len(numbers) == 30 and numbers[:3] == [0, 2, 4] and max(numbers) <= MOST_OPERATIONS


def test_each_operation_is_computed_again() -> None:
    """Each rule on its own: what follows an operation keeps its output, which is rebuilt bit for bit."""
    hidden, other = torch.randn(6, 8), torch.randn(6, 8)
    norm = nn.LayerNorm(8, eps=0.1)
    norm.register_forward_hook(note_epsilon)
    nn.init.normal_(norm.weight)
    cases: dict[str, Callable[[Tensor], Tensor]] = {
        "AddBackward0": lambda x: torch.add(x, x, alpha=3),
        "MulBackward0": lambda x: x * other,
        "AddcmulBackward0": lambda x: torch.addcmul(norm.bias, x, norm.weight, value=0.5),
        "SiluBackward0": torch.nn.functional.silu,
        "GeluBackward0": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "NativeLayerNormBackward0": norm,
        "NativeDropoutBackward0": lambda x: torch.native_dropout(x, 0.5, True)[0],
        "ToCopyBackward0": lambda x: x.bfloat16(),
        "ViewBackward0": lambda x: x.view(12, 4),
        "UnsafeViewBackward0": lambda x: torch.ops.aten._unsafe_view(x, [4, 12]),
    }
    assert set(cases) == set(RULES)
    for name, operation in cases.items():
        leaf = hidden.clone().requires_grad_()
        forward = ForwardPass(nn.Identity())
        first = leaf * 1.0
        _ = first.exp(), first.cos(), first.sin().cos()  # which keep their inputs
        output = operation(first)
        _ = output.cos()
        (packed,) = [forward.known[key] for key in [(output.grad_fn, 0)]]
        forward.end()
        assert output.grad_fn is not None and output.grad_fn.name() == name
        assert isinstance(packed, Rebuilt), name
        assert torch.equal(packed.unpack(), output) and packed.unpack().dtype == output.dtype


def test_sixteen_bits_are_kept_instead_of_their_float32_copy() -> None:
    hidden = torch.randn(6, 8).bfloat16().requires_grad_()
    forward = ForwardPass(nn.Identity())
    wide = (hidden * 2).float()
    result = wide.cos()
    packed = forward.known[wide.grad_fn, 0]
    forward.end()
    assert isinstance(packed, Rebuilt) and packed.operands[0].unpack().dtype == torch.bfloat16
    assert torch.equal(packed.unpack(), wide)
    result.sum().backward()
    assert hidden.grad is not None


def test_nothing_is_rebuilt_from_weights_that_were_taken_away() -> None:
    """A strategy that divides the weights frees those of a block once it has run."""
    scaling, bias = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    hidden = (torch.randn(4, 8, requires_grad=True) * 2).cos()
    forward = ForwardPass(nn.Identity())
    edited = torch.addcmul(bias, hidden, scaling)
    bias.untyped_storage().resize_(0)
    _ = edited.cos()
    packed = forward.known[edited.grad_fn, 0]
    forward.end()
    assert isinstance(packed, Kept)


def alive(made: Iterable[StorageWeakRef], model: nn.Module, given: Any = ()) -> int:
    gc.collect()
    owned = [IDS, *model.parameters(), *model.buffers(), *tensors_in(given)]
    known = {StorageWeakRef(tensor.untyped_storage()) for tensor in owned}
    return sum(not storage.expired() for storage in made if storage not in known)


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_nothing_stays_after_the_step(family: str) -> None:
    model, _ = pair(family)
    loss(model)  # buffers that are made once
    with new_storages() as made:
        gradients = step(model)
    assert alive(made, model, gradients) == 0
    with new_storages() as made:
        loss(model)  # never differentiated
    assert alive(made, model) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_after_an_error(error: type[BaseException]) -> None:
    model, plain = pair("gpt2")
    expected = step(plain)
    loss(model)

    def fail(*_: Any) -> None:
        raise error

    handle = model.get_submodule("transformer.h.2").register_forward_hook(fail)
    with new_storages() as made, pytest.raises(error):
        loss(model)
    handle.remove()
    found = step(model)  # ends what a KeyboardInterrupt, which forward hooks do not see, has left
    assert torch.equal(found[0], expected[0]) and distance(found[1], expected[1]) <= 1e-6
    assert alive(made, model) == 0
    leaf = torch.ones(3, requires_grad=True)
    square = leaf.square()
    with torch.no_grad():
        leaf.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # torch's own check: no hooks are left
        square.sum().backward()


def test_a_second_backward_pass_and_second_derivatives() -> None:
    results = []
    for model in pair("llama", dropout=0.0):
        model.set_attn_implementation("eager")  # torch has no second derivative of the other on a CPU
        value = loss(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        first = torch.autograd.grad(value, trained[:1], retain_graph=True)  # not all of the graph
        again = torch.autograd.grad(value, trained, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in again), trained)
        results.append([*first, *(g.detach() for g in again), *second])
    assert distance(*results) <= 1e-6
    assert all(map(torch.equal, *results))


def test_a_change_in_place_is_refused_as_without_it() -> None:
    for model in pair("gpt2", dropout=0.0):
        value = loss(model)
        with torch.no_grad():
            model.get_submodule("transformer.h.1.mlp.c_proj.editor").scaling.add_(1)  # type: ignore[operator, union-attr]
        with pytest.raises(RuntimeError, match=r"in ?place"):
            value.backward()


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_autocast(family: str) -> None:
    def compute(model: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model)

    ours, plain = (step(model, compute) for model in pair(family))
    assert torch.equal(ours[0], plain[0]) and distance(ours[1], plain[1]) <= (1e-2 if family == "gpt2" else 0)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "roberta", "t5"])
def test_the_option(tmp_path: Path, family: str, checkpointing: bool) -> None:
    save_backbone(family, tmp_path)
    load = load_encoder if family == "roberta" else load_generator
    found = []
    for recompute in (True, False):  # null leaves small batches alone
        options = BackboneOptions(gradient_checkpointing=checkpointing, selective_recomputation=recompute)
        extra = [False] if family == "roberta" else []  # keep_pooler
        model = prepared(load, find(str(tmp_path), options), options, *extra)
        assert any(module._forward_hooks for module in model.modules()) == recompute
        randomise(RED().apply(model), 0.3)
        found.append((*step(model), kept(model)))
    (ours, gradients, few), (plain, expected, many) = found
    assert torch.equal(ours, plain) and distance(gradients, expected) <= 1e-6
    assert few <= many if checkpointing else few < many


@pytest.mark.parametrize(
    ("rows", "dtype", "less"), [(64, torch.float32, True), (32, torch.float32, False), (64, torch.bfloat16, False)]
)
def test_by_itself_it_is_done_where_it_costs_no_time(rows: int, dtype: torch.dtype, less: bool) -> None:
    plain = build("distilbert", dropout=0.0).to(dtype)
    RED().apply(plain)
    ours = copy.deepcopy(plain)
    recompute_selectively(ours)
    ids = torch.full((rows, 64), 7)  # of 32 columns each
    assert (saved_bytes(lambda: loss(ours, ids), ours) < saved_bytes(lambda: loss(plain, ids), plain)) == less


def test_without_gradients_nothing_is_done() -> None:
    model, plain = pair("gpt2", dropout=0.0)
    with torch.no_grad():
        assert torch.equal(loss(model), loss(plain))
    model.requires_grad_(False)
    assert not loss(model).requires_grad
    twin = copy.deepcopy(model)
    assert torch.equal(loss(twin), loss(plain))


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_an_operation_that_is_computed_otherwise_is_caught(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a release of torch gave a node's name to another operation: gradients stay right, and a warning says so."""
    monkeypatch.setattr(verification, "_verdicts", {})
    ours, plain = pair(family)
    state = torch.get_rng_state()
    assert distance(step(ours)[1], step(plain)[1]) < 1e-6
    assert verification.verdicts_of(ours)["selective recomputation"].holds
    rule = RULES["AddcmulBackward0"]
    monkeypatch.setitem(RULES, "AddcmulBackward0", rule._replace(function=lambda _: lambda bias, h, s: bias - h * s))
    monkeypatch.setattr(verification, "_verdicts", {})
    structure_changed()
    with pytest.warns(FastPathWarning, match="'selective recomputation' differs"):
        gradients = step(ours)[1]
    assert distance(gradients, step(plain)[1]) < 1e-6
    assert all(module.training for module in ours.modules())
    torch.set_rng_state(state)
