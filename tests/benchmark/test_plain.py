"""The plain way is what the authors' own code computes, so that it is no straw man."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, GPT2LMHeadModel, LlamaForCausalLM, RobertaModel

from red_lightning.benchmark.plain import PlainEdit, apply_plain_edits
from tests.conftest import SHARED

MODELS: dict[str, Any] = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM, "roberta": RobertaModel}
INPUTS = ("input_ids", "attention_mask")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference material is not beside the repository")
@pytest.mark.parametrize("file", ["gpt2_ffn", "llama_ffn", "roberta_ffn", "roberta_attn", "roberta_ffn_attn"])
def test_it_gives_the_authors_logits_and_gradients(file: str) -> None:
    expected = torch.load(Path(SHARED / f"oracle/forward/{file}.pt"), weights_only=True)
    arch = expected["arch"]
    config = AutoConfig.for_model(**json.loads(expected["config"]))
    model = MODELS[arch](config) if arch != "roberta" else RobertaModel(config, add_pooling_layer=False)
    model.load_state_dict(expected["base_state"])
    learned = apply_plain_edits(model.eval(), [*expected["sites"].items()])
    names = [f"{site}.delta_vector.activation_{which}" for site in expected["sites"] for which in ("scaling", "bias")]
    with torch.no_grad():
        for name, parameter in zip(names, learned, strict=True):
            parameter.copy_(expected["delta"][name])  # of the same shape: (1, width)
    ids, labels = expected["inputs"]["input_ids"], expected["inputs"]["labels"]
    inputs = {"input_ids": ids} if arch == "gpt2" else {name: expected["inputs"][name] for name in INPUTS}
    output = model(**inputs)
    if arch == "roberta":
        head = expected["classifier"]
        hidden = torch.tanh(output.last_hidden_state[:, 0] @ head["dense.weight"].T + head["dense.bias"])
        logits = hidden @ head["out_proj.weight"].T + head["out_proj.bias"]
        loss = cross_entropy(logits, labels)
    else:
        logits, wanted, ignored = output.logits, labels[:, 1:], 0
        if arch == "llama":
            wanted, ignored = wanted.masked_fill(inputs["attention_mask"][:, 1:] == 0, -100), -100
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten(), ignore_index=ignored)
    torch.testing.assert_close(logits, expected["logits"], atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(loss, learned)
    for name, gradient in zip(names, gradients, strict=True):
        wanted = expected["grads"][name]  # of Llama: bfloat16, as their vectors are whatever the backbone is
        rtol = 1e-4 if wanted.dtype == torch.float32 else 2**-8
        torch.testing.assert_close(gradient, wanted.to(gradient.dtype), atol=1e-5, rtol=rtol)


def test_nothing_but_the_vectors_trains() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    inputs = torch.randn(5, 3)
    before = model(inputs)
    learned = apply_plain_edits(model, [("1", 2)])
    assert isinstance(model[1], PlainEdit)
    assert [tuple(vector.shape) for vector in learned] == [(1, 2), (1, 2)]
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(vector) for vector in learned}
    assert torch.equal(model(inputs), before)
    with torch.no_grad():
        learned[0].fill_(2.0)
        learned[1].fill_(0.5)
    assert torch.equal(model(inputs), before * 2.0 + 0.5)
