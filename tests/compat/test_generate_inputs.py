"""What the package's own decoding relies on: how ``generate`` feeds a model, and the layers of its cache."""

from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from red_lightning.compat.generate_inputs import PREPARE, is_fed_as_most
from red_lightning.compat.key_value_cache import cache_argument
from tests.backbones_zoo import build

OF = f"of transformers {transformers.__version__}"


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_most_models_are_fed_alike(family: str) -> None:
    assert is_fed_as_most(build(family)), f"GenerationMixin.{PREPARE} {OF} has changed: see compat/decoding.py"


def test_phi_3_begins_anew_where_long_positions_do() -> None:
    assert not is_fed_as_most(build("phi3"))


def test_where_the_method_is_gone_nothing_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2")
    monkeypatch.delattr(GenerationMixin, PREPARE)
    assert not is_fed_as_most(model)


def test_a_layer_of_a_cache_can_be_another() -> None:
    class Doubling(DynamicLayer):
        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            return 2 * keys, values

    model = build("gpt2")
    config: Any = model.config
    cache = DynamicCache(config=config)
    message = f"Cache.layers {OF} are no DynamicLayers any more: see generation/beam_cache.py"
    assert all(type(layer) is DynamicLayer for layer in cache.layers) and cache.layers, message
    cache.layers = [Doubling() for _ in cache.layers]
    tokens, name = torch.tensor([[5, 6, 7]]), str(cache_argument(model))
    with torch.no_grad():
        plain, doubled = model(tokens, use_cache=True)[0], model(tokens, **{name: cache}, use_cache=True)[0]
    assert not torch.allclose(plain, doubled), f"a model does not use what a layer's update returns, {OF}"
    layer = cache.layers[0]
    assert layer.is_initialized and layer.get_seq_length() == 3
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([1]))
    assert len(layer.keys) == len(layer.values) == 1
