"""The loss at labels alone is that of all logits, with its gradients, and takes one row of logits for each label."""

from collections.abc import Sequence
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from red_lightning import RED
from red_lightning.data.collation import label_places
from red_lightning.efficiency import loss_head
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.methods import FullFineTuning
from tests.backbones_zoo import FAMILIES, MASKED, VOCABULARY, build

WRITERS = [family for family in FAMILIES if family not in MASKED]
AT_ONCE = 4
WIDTH = 32


@pytest.fixture(autouse=True)
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few enough logits at once for many parts."""
    monkeypatch.setattr(loss_head, "AT_ONCE", AT_ONCE * VOCABULARY + 7)


def model_of(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A frozen model with random vectors."""
    model: Any = build(family, dropout=0.0).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for vector in RED().apply(model).values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    return model.train()


def batch_of(model: Any) -> tuple[Tensor, dict[str, Any]]:
    """Labels of rows of which one has none and another has them in the middle, and the inputs."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCABULARY, (4, 12), generator=generator)
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1], labels[2, 9:] = -100, -100
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
    return labels, inputs


def plain_losses(model: Any, labels: Tensor, inputs: dict[str, Any], smoothing: float) -> Tensor:
    """Of all logits, as transformers computes them."""
    logits = model(**inputs).logits.float()
    if not model.config.is_encoder_decoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    return cross_entropy(logits.transpose(1, 2), labels, reduction="none", label_smoothing=smoothing)


def gradients(model: nn.Module, losses: Tensor) -> list[Tensor]:
    """Of a weighted sum of some losses, by each parameter that trains."""
    flat = losses[losses != 0]
    weights = torch.linspace(0.5, 2, len(flat))
    return list(torch.autograd.grad((flat * weights).sum(), [p for p in model.parameters() if p.requires_grad]))


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative difference of a tensor's norm."""
    pairs = zip(found, expected, strict=True)
    return max(((own - other).norm() / other.norm()).item() for own, other in pairs)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("family", WRITERS)
def test_losses_and_gradients_are_those_of_all_logits(family: str, smoothing: float) -> None:
    model = model_of(family)
    labels, inputs = batch_of(model)
    expected = plain_losses(model, labels, inputs, smoothing)
    losses = label_losses(model, labels, label_smoothing=smoothing, **inputs)
    assert losses.dtype == torch.float32 and losses.shape == labels.shape
    assert not losses[labels < 0].any()
    torch.testing.assert_close(losses[:, -expected.shape[1] :], expected, rtol=1e-6, atol=1e-6)
    assert difference(gradients(model, losses), gradients(model, expected)) < 3e-6
    with torch.no_grad():
        torch.testing.assert_close(label_losses(model, labels, label_smoothing=smoothing, **inputs), losses.detach())


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("family", WRITERS)
def test_places_that_are_given_are_those_that_are_found(family: str, trains: bool) -> None:
    model = model_of(family)
    model.get_output_embeddings().weight.requires_grad_(trains)
    labels, inputs = batch_of(model)
    found = label_losses(model, labels, **inputs)
    given = label_losses(model, labels, places=label_places(labels), **inputs)
    assert torch.equal(given, found)
    expected = plain_losses(model, labels, inputs, 0.0)
    torch.testing.assert_close(found[:, -expected.shape[1] :], expected, rtol=1e-6, atol=1e-6)
    assert difference(gradients(model, given), gradients(model, expected)) < 1e-5  # rounding differs by processor


@pytest.mark.parametrize("family", WRITERS)
def test_each_label_costs_one_row_of_logits(family: str) -> None:
    model = model_of(family)
    labels, inputs = batch_of(model)
    label_losses(model, labels, **inputs)  # compares its ways, once
    shapes: list[torch.Size] = []
    model.get_output_embeddings().register_forward_hook(lambda *called: shapes.append(called[2].shape))
    label_losses(model, labels, **inputs).sum().backward()
    assert shapes[0][1] == 0  # within the model's own call
    assert all(rows <= AT_ONCE for rows, _ in shapes[1:])
    assert sum(rows for rows, _ in shapes[1:]) == (labels >= 0).sum()  # once: nothing is computed again


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_head_keeps_one_hidden_state_for_each_label(frozen: bool) -> None:
    """What autograd saves of the loss, beyond what it saves of the hidden states: unlike logits, no vocabulary."""
    model = model_of("llama")
    labels, inputs = batch_of(model)
    model.lm_head.weight.requires_grad_(not frozen)
    saved: list[Any] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(ref(tensor))
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = label_losses(model, labels, **inputs)
    assert losses.requires_grad
    kept = [tensor for reference in saved if (tensor := reference()) is not None]
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    vocabulary = [t for t in kept if VOCABULARY in t.shape and t.data_ptr() not in weights]
    count = int((labels >= 0).sum())
    assert bool(vocabulary) != frozen
    if frozen:
        assert [t.nbytes for t in kept if t.shape == (count, WIDTH)] == [4 * count * WIDTH]


def test_predictors_say_whose_hidden_state_predicts_a_label() -> None:
    """One position may predict several labels."""
    model = model_of("gpt2")
    labels, inputs = batch_of(model)
    predictors = torch.full_like(labels, 3)
    losses = label_losses(model, labels, predictors, **inputs)
    log_p = model(**inputs).logits[:, 3].log_softmax(-1)
    expected = -log_p.gather(1, labels.clamp(min=0)) * (labels >= 0)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    assert difference(gradients(model, losses), gradients(model, expected)) < 2e-6


def trained_head(model: Any) -> None:
    FullFineTuning().apply(model)


def edited_head(model: Any) -> None:
    RED(["*lm_head"]).apply(model)


def unknown_family(model: Any) -> None:
    model.config.model_type = "unheard_of"


def own_code(model: Any) -> None:
    class Doubled(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = 2 * output.logits
            return output

    model.__class__ = Doubled


def own_head(model: Any) -> None:
    model.lm_head = nn.Sequential(model.lm_head, nn.Softplus()).requires_grad_(False)


@pytest.mark.parametrize("change", [trained_head, edited_head, unknown_family, own_code, own_head])
def test_other_heads_are_left_to_the_model(change: Any) -> None:
    """And give what they give without us, from logits of the labels (or of their columns) alone where they can."""
    model: Any = build("llama", dropout=0.0)
    if change not in (trained_head, edited_head):
        RED().apply(model)
    change(model)
    labels, inputs = batch_of(model)
    expected = plain_losses(model, labels, inputs, 0.0)
    label_losses(model, labels, **inputs)  # compares its ways, once
    shapes: list[torch.Size] = []
    model.lm_head.register_forward_hook(lambda *called: shapes.append(called[2].shape))
    losses = label_losses(model, labels, **inputs)
    rows = {own_code: (4, 12), unknown_family: (4, 8), own_head: (4, 8)}.get(change, (1, int((labels >= 0).sum())))
    assert [tuple(shape) for shape in shapes] == [(*rows, VOCABULARY)]
    torch.testing.assert_close(losses[:, 1:], expected, rtol=1e-6, atol=1e-6)
    assert difference(gradients(model, losses), gradients(model, expected)) < 2e-6


def test_a_batch_without_labels_trains_nothing() -> None:
    model = model_of("llama")
    labels, inputs = batch_of(model)
    losses = label_losses(model, torch.full_like(labels, -100), **inputs)
    losses.sum().backward()
    assert not losses.any()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 2e-3)])
@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_sixteen_bits_lose_no_more_than_plainly(family: str, dtype: torch.dtype, tolerance: float) -> None:
    """Of the gradient by the hidden states, float32's being the truth; half precision has few small numbers."""
    model = build(family, dropout=0.0).requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(40, WIDTH, generator=generator)
    labels = torch.randint(VOCABULARY, (40,), generator=generator)
    found = []
    for number in (torch.float32, dtype):
        own: Any = model.to(number)
        states = hidden.to(dtype).to(number).requires_grad_()
        to_logits = loss_head._to_logits(own, own.get_output_embeddings())
        losses = loss_head._LossInParts.apply(states, labels, to_logits, 0.0, AT_ONCE)
        assert losses.dtype == torch.float32
        (losses.mean() * (1 if number == torch.bfloat16 else 1024)).backward()
        assert states.grad is not None and states.grad.dtype == number
        found.append(states.grad.float() / (1 if number == torch.bfloat16 else 1024))
    assert difference([found[1]], [found[0]]) < tolerance


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_autocast_and_inference(family: str) -> None:
    model = model_of(family)
    labels, inputs = batch_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected, losses = plain_losses(model, labels, inputs, 0.0), label_losses(model, labels, **inputs)
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses[:, -expected.shape[1] :], expected, rtol=1e-6, atol=1e-6)
        assert difference(gradients(model, losses), gradients(model, expected)) < 0.02
        with torch.inference_mode():
            torch.testing.assert_close(label_losses(model, labels, **inputs), losses.detach())
