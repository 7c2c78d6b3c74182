"""Edits that are switched off: bit for bit the backbone without them, and afterwards bit for bit with them."""

import pytest
import torch

from red_lightning import methods
from red_lightning.editing.surgery import shared_copy
from red_lightning.editing.unedited import unedited
from red_lightning.errors import UsageError
from red_lightning.methods import Method
from tests.backbones_zoo import build
from tests.sequences import hidden, randomise

METHODS: list[tuple[str, Method]] = [
    ("gpt2", methods.RED(methods.RED_PLUS_SITES)),
    ("llama", methods.RED(["residual"])),
    ("t5", methods.RED()),
    ("gpt2", methods.LoRA()),
    ("gpt2", methods.Adapter()),
    ("gpt2", methods.BitFit()),
    ("llama", methods.SSF()),
    ("llama", methods.PrefixTuning(length=4)),
    ("t5", methods.PromptTuning(length=4)),
    ("gpt2", methods.LoReFT(last=0)),
]


@pytest.mark.parametrize(("family", "method"), METHODS, ids=lambda value: getattr(type(value), "__name__", value))
def test_the_backbone_is_what_it_was_and_then_edited_again(family: str, method: Method) -> None:
    model = build(family)
    before = hidden(model)
    randomise(method.apply(model))
    after = hidden(model)
    assert not torch.equal(after, before)
    for _ in range(2):
        with unedited(model):
            assert torch.equal(hidden(model), before)
        assert torch.equal(hidden(model), after)
    method.detach(model)
    assert torch.equal(hidden(model), before)


def test_an_interruption_switches_them_on_again() -> None:
    model = build("gpt2")
    randomise(methods.RED().apply(model))
    after = hidden(model)
    with pytest.raises(KeyboardInterrupt), unedited(model):
        raise KeyboardInterrupt
    assert torch.equal(hidden(model), after)


def test_hooks_of_others_stay() -> None:
    model, calls = build("gpt2"), []
    randomise(methods.RED().apply(model))
    model.transformer.h[0].mlp.c_proj.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr, index]
    with unedited(model):
        hidden(model)
    assert calls == [1]


def test_a_copy_is_switched_off_alone() -> None:
    model = build("gpt2")
    randomise(methods.RED().apply(model))
    after, twin = hidden(model), shared_copy(model)
    with unedited(twin):
        assert torch.equal(hidden(model), after)
        assert not torch.equal(hidden(twin), after)
    assert torch.equal(hidden(twin), after)


def test_weights_that_were_trained_cannot_be_switched_off() -> None:
    model = build("gpt2")
    methods.FullFineTuning().apply(model)
    with (
        pytest.raises(UsageError, match=r"changed the backbone's own weights.*load the backbone once more"),
        unedited(model),
    ):
        pytest.fail("it was switched off")
