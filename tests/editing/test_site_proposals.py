"""A model of an unknown family gets its sites proposed, and what is proposed can be edited."""

from typing import Any

import pytest
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from red_lightning.editing.site_proposals import proposed_sites
from red_lightning.errors import UsageError
from red_lightning.families import architecture_of
from red_lightning.methods import RED
from tests.backbones_zoo import FAMILIES, build
from tests.families.decoder_zoo import _SMALL


def unknown(family: str) -> Any:
    model: Any = build(family)
    model.config.model_type = "unheard_of"
    return model


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_the_ffn_of_every_known_family_is_found_without_its_record(family: str) -> None:
    """By shapes alone; an encoder-decoder has two."""
    model: Any = build(family)
    record = architecture_of(model.config)
    _, likely = proposed_sites(unknown(family))
    expected = {name for name, _ in model.named_modules() if record.site_pattern("ffn").fullmatch(name)}
    model = unknown(family)
    vectors = RED(likely).apply(model)
    assert {name.removesuffix(".editor.scaling") for name in vectors if name.endswith("scaling")} == expected


def test_the_error_can_be_pasted() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("persimmon", **_SMALL))
    with pytest.raises(UsageError) as caught:
        RED().apply(model)
    message = str(caught.value)
    assert "'model.layers.*.self_attn.dense', 'model.layers.*.mlp.dense_4h_to_h'" in message
    sites = message.partition("probably sites: ")[2]
    assert sites == "['model.layers.*.mlp.dense_4h_to_h']"
    assert len(RED(["model.layers.*.mlp.dense_4h_to_h"]).apply(model)) == 4


def test_a_pattern_matches_no_other_linear_in_deep_models_either() -> None:
    """A star matches dots too: that of BERT's FFN would match its attention."""
    model: Any = build("bert", layers=11)
    patterns, likely = proposed_sites(model)
    assert likely == [f"encoder.layer.{digits}.output.dense" for digits in ("[0-9]", "[0-9][0-9]")]
    assert "encoder.layer.*.attention.output.dense" in patterns
    assert len(RED(likely).apply(model)) == 22


def test_without_blocks_nothing_is_proposed() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4))
    assert proposed_sites(model) == ([], [])
    with pytest.raises(UsageError, match=r"sites: \['\*.mlp.down_proj'\]"):
        RED().apply(model)


def test_linears_of_other_widths_are_none() -> None:
    patterns, likely = proposed_sites(unknown("llama"))
    assert patterns == ["model.layers.*.self_attn.q_proj", "model.layers.*.self_attn.o_proj", *likely]
    assert all("embed" not in pattern and "lm_head" not in pattern for pattern in patterns)
