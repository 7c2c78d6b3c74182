"""(IA)3: what is scaled, and the paper's parameter count."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from red_lightning.methods import IA3
from tests.backbones_zoo import build
from tests.methods.guarantees import size
from tests.methods.real_sizes import on_meta


def test_keys_and_values_after_and_ffn_before_its_last_linear() -> None:
    model = build("llama")
    key, down = "model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj"
    plain = {name: model.get_submodule(name) for name in (key, down)}
    parameters = IA3().apply(model)
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters.values())
    for parameter in parameters.values():
        parameter.data.normal_()
    inputs, inner = torch.randn(3, 32), torch.randn(3, 64)
    torch.testing.assert_close(
        model.get_submodule(key)(inputs), plain[key](inputs) * parameters[f"{key}.ia3_l.editor"].flatten()
    )
    torch.testing.assert_close(
        model.get_submodule(down)(inner), plain[down](inner * parameters[f"{down}.ia3_l.editor"].flatten())
    )


def test_count_of_the_paper() -> None:
    """Section 3.3: L (dk + dv + dff) for the encoder, L (2 dk + 2 dv + dff) for the decoder."""
    encoder, decoder = 12 * (768 + 768 + 3072), 12 * (2 * 768 + 2 * 768 + 3072)
    assert size(IA3().apply(on_meta("t5-base", AutoModelForSeq2SeqLM))) == encoder + decoder == 129_024


@pytest.mark.parametrize("sites", [["key", "value"], None])
def test_without_the_ffn_nothing_is_scaled_before_a_linear(sites: list[str] | None) -> None:
    parameters = IA3(sites).apply(build("roberta"))
    rows = {name for name, p in parameters.items() if p.shape[0] == 1}  # scaled before: (1, inputs)
    expected = {f"encoder.layer.{layer}.output.dense.ia3_l.editor" for layer in (0, 1)} if sites is None else set()
    assert rows == expected
