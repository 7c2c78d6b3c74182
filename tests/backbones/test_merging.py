"""Several trainings in one pass of a backbone, against each of them alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning.backbones.loading import BackboneOptions, keep_less
from red_lightning.backbones.loss_head import label_losses
from red_lightning.backbones.merged_editor import Batch, MergedEditor
from red_lightning.backbones.merging import parts
from red_lightning.backbones.recomputation import recompute_selectively
from red_lightning.backbones.shared_sources import shared_mask
from red_lightning.backbones.surgery import shared_copy
from red_lightning.errors import UsageError
from red_lightning.methods import RED
from red_lightning.methods.red import RepresentationEditor
from red_lightning.strategies.together import Group
from tests.backbones_zoo import FAMILIES, MASKED, VOCABULARY, build

SHAPES = [(2, 7), (3, 5), (1, 9)]
"""Rows and tokens of each training's batch."""
Loss = Callable[[Any], Tensor]


def without_dropout(family: str) -> nn.Module:
    """A tiny backbone in training mode, which draws nothing, in float64, so that rounding hides no error."""
    backbone = build(family, dropout=0.0).train().double()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):  # that of attention has an option of its own in each family
            module.p = 0.0
    return backbone


def batch(rows: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Token ids without special tokens; the last row is a token shorter than the others."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, VOCABULARY, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, -1] = 0
    return {"input_ids": ids, "attention_mask": mask}


def loss_of(family: str, shape: tuple[int, int], seed: int) -> Loss:
    """What a training minimises on a batch of its own: a function of hidden states, or of labels."""
    inputs = batch(*shape, seed)
    if family in MASKED:
        hold = torch.randn(shape[0], shape[1], 1, generator=torch.Generator().manual_seed(seed))
        hold = hold * inputs["attention_mask"][..., None]
        return lambda backbone: (parts(backbone)["layers"](**inputs).last_hidden_state * hold).pow(2).sum()
    labels = inputs["input_ids"].where(inputs["attention_mask"] == 1, -100)
    if family == "t5":
        return partial(_of_encoder_decoder, inputs, labels[:, :4])
    return lambda backbone: label_losses(backbone, labels, use_cache=False, **inputs).sum()


def _of_encoder_decoder(inputs: dict[str, Tensor], labels: Tensor, backbone: Any) -> Tensor:
    encoded = backbone.get_encoder()(**inputs)
    shifted = backbone.prepare_decoder_input_ids_from_labels(labels=labels)
    mask = inputs["attention_mask"]
    options = {"encoder_outputs": encoded, "attention_mask": mask, "decoder_input_ids": shifted, "use_cache": False}
    return label_losses(backbone, labels, **options).sum()


def edited(backbone: nn.Module, method: RED, seed: int) -> dict[str, nn.Parameter]:
    """Apply a method, with vectors that change something."""
    learned = method.apply(backbone)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learned.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
    return learned


def together(backbone: nn.Module, method: RED, losses: list[Loss]) -> tuple[Group, list[tuple[Tensor, dict[str, Any]]]]:
    """The loss and the gradients of each training, computed in one pass."""
    group = Group(len(losses))
    found: list[Any] = [None] * len(losses)

    def train(member: int) -> None:
        own = group.merged.join(member, lambda: backbone, group.call)
        learned = edited(own, method, member)
        value = losses[member](own)
        value.backward()
        group.backward(member)
        found[member] = value.detach(), {name: parameter.grad for name, parameter in learned.items()}

    group.turns.start([partial(train, member) for member in range(len(losses))])
    group.turns.wait()
    for error in group.turns.ended.values():
        if error is not None:
            raise error
    return group, found


def alone(backbone: nn.Module, method: RED, loss: Loss, member: int) -> tuple[Tensor, dict[str, Any]]:
    """The same of one training by itself."""
    own = shared_copy(backbone)
    learned = edited(own, method, member)
    value = loss(own)
    value.backward()
    return value.detach(), {name: parameter.grad for name, parameter in learned.items()}


def require_equal(family: str, backbone: nn.Module, method: RED, shapes: list[tuple[int, int]] = SHAPES) -> None:
    losses = [loss_of(family, shape, member) for member, shape in enumerate(shapes)]
    group, found = together(backbone, method, losses)
    assert group.merged.computed == len(parts(backbone))
    require_found(backbone, method, losses, found)


def require_found(backbone: nn.Module, method: RED, losses: list[Loss], found: list[Any]) -> None:
    for member, loss in enumerate(losses):
        expected, gradients = alone(backbone, method, loss, member)
        value, own = found[member]
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
        assert own.keys() == gradients.keys()
        for name, gradient in gradients.items():
            error = (own[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
            assert error < 1e-6, f"{name} of training {member}: {error}"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_training_gets_what_it_would_get_alone(family: str) -> None:
    require_equal(family, without_dropout(family), RED())


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta", "t5"])
def test_other_sites_and_vectors(family: str) -> None:
    backbone = without_dropout(family)
    require_equal(family, backbone, RED(sites=["query", "value", "residual"]))
    require_equal(family, backbone, RED(vectors="bias"))
    require_equal(family, backbone, RED(vectors="scaling", layers=[1]))


@pytest.mark.parametrize("family", ["gpt2", "roberta", "t5"])
def test_batches_of_one_shape(family: str) -> None:
    require_equal(family, without_dropout(family), RED(), [(2, 6)] * 3)


@pytest.mark.parametrize("family", ["gpt2", "roberta", "t5"])
def test_gradient_checkpointing(family: str) -> None:
    backbone: Any = without_dropout(family)
    keep_less(backbone, BackboneOptions(gradient_checkpointing=True, selective_recomputation=False))
    require_equal(family, backbone, RED())


def test_selective_recomputation() -> None:
    backbone = without_dropout("gpt2")
    recompute_selectively(backbone, always=True)
    require_equal("gpt2", backbone, RED())


def test_weights_are_shared_and_evaluation_is_each_ones_own() -> None:
    backbone, inputs = without_dropout("gpt2"), batch(2, 6, 0)
    group, _ = together(backbone, RED(), [loss_of("gpt2", (2, 5), member) for member in range(2)])
    first, second = group.merged.twins.values()
    frozen = [name for name, parameter in first.named_parameters() if not parameter.requires_grad]
    assert all(first.get_parameter(name) is backbone.get_parameter(name) for name in frozen)
    with torch.no_grad():
        outputs = [twin.eval()(**inputs).logits for twin in (first, second)]
    assert not torch.allclose(outputs[0], outputs[1])
    assert group.merged.computed == 1


def sharing(backbone: Any, tokens: int) -> Loss:
    """The loss of two targets that share a source, in one row."""
    ids = batch(1, tokens, tokens)["input_ids"]
    sources, targets = torch.ones_like(ids), torch.tensor([[0, 0, *(1 + n % 2 for n in range(tokens - 2))]])
    mask = shared_mask(backbone, sources, targets)
    return lambda own: label_losses(own, ids, input_ids=ids, attention_mask=mask, use_cache=False).sum()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_masks_of_every_pair_of_tokens(family: str, attention: str) -> None:
    backbone: Any = without_dropout(family)
    backbone.set_attn_implementation(attention)
    losses = [sharing(backbone, tokens) for tokens in (6, 9, 9)]
    group, found = together(backbone, RED(), losses)
    assert group.merged.computed == 1
    require_found(backbone, RED(), losses, found)


def test_what_knows_no_rows_is_computed_alone() -> None:
    backbone = without_dropout("gpt2")
    ids = batch(2, 5, 0)["input_ids"]
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(1, 1, 5, 5)
    loss: Loss = lambda own: label_losses(own, ids, input_ids=ids, attention_mask=mask, use_cache=False).sum()  # noqa: E731
    group, found = together(backbone, RED(), [loss, loss])
    assert group.merged.computed == 0
    for member, (value, gradients) in enumerate(found):
        expected, own = alone(backbone, RED(), loss, member)
        assert torch.equal(value, expected)
        assert all(torch.equal(gradients[name], own[name]) for name in own)


def test_a_site_that_knows_no_rows_is_refused() -> None:
    editor = MergedEditor(
        "position_bias", {0: RepresentationEditor(4), 1: RepresentationEditor(4)}, Batch({0: 2, 1: 3})
    )
    assert editor(torch.zeros(5, 7, 4)).shape == (5, 7, 4)
    with pytest.raises(UsageError, match="'position_bias' is computed for the whole batch at once"):
        editor(torch.zeros(1, 7, 4))
