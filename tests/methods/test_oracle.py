"""The authors' own code computed these files: logits, loss, gradients, five optimizer steps, generations."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    RobertaModel,
    T5ForConditionalGeneration,
)

from red_lightning import RED
from red_lightning.methods import RED_PLUS_SITES
from red_lightning.tasks.optimization import build_optimizer, build_schedule
from tests.conftest import SHARED

FILES = sorted((SHARED / "oracle/forward").glob("*.pt"))
SITES = {"ffn": ["ffn"], "attn": ["attention"], "ffn_attn": ["ffn", "attention"], "res": ["residual"]}
VECTORS = {"all": "both", "scaling": "scaling", "bias": "bias"}
MODELS = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM, "t5": T5ForConditionalGeneration}

pytestmark = pytest.mark.skipif(not FILES, reason="the reference material is not beside the repository")


class Head(nn.Module):
    """The paper's classification head, without its dropout (the oracle is in evaluation mode)."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        labels, width = weights["out_proj.weight"].shape
        self.dense, self.out_proj = nn.Linear(width, width), nn.Linear(width, labels)
        self.load_state_dict(weights)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out_proj(torch.tanh(self.dense(hidden[:, 0])))


class Case:
    """One file: the edited model, its vectors under the file's names, and its loss."""

    def __init__(self, path: Path, edited: bool = True) -> None:
        self.expected = torch.load(path, weights_only=True)
        self.arch, inputs = self.expected["arch"], self.expected["inputs"]
        options = json.loads(self.expected["kwargs"])
        config = AutoConfig.for_model(**json.loads(self.expected["config"]))
        self.model = MODELS[self.arch](config) if self.arch in MODELS else RobertaModel(config, False)
        self.model.load_state_dict(self.expected["base_state"])
        self.model.eval()
        self.head = Head(self.expected["classifier"]) if "classifier" in self.expected else None
        self.inputs: dict[str, Any] = {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
        }
        if self.arch == "gpt2":
            del self.inputs["attention_mask"]
        if self.arch == "t5":
            self.inputs["labels"] = inputs["labels"]
        self.labels = inputs["labels"]
        position = options.get("op_position", "ffn")
        self.method = RED(SITES.get(position, RED_PLUS_SITES), VECTORS[options.get("layer_type", "all")])
        parameters = self.method.apply(self.model)
        self.vectors = {
            name.replace("editor.", "delta_vector.activation_"): vector for name, vector in parameters.items()
        }
        if edited:
            with torch.no_grad():
                for name, value in self.expected["delta"].items():
                    self.vectors[name].copy_(value[0])

    def logits(self) -> Tensor:
        output = self.model(**self.inputs)
        return output.logits if self.head is None else self.head(output.last_hidden_state)

    def loss(self) -> Tensor:
        logits, labels = self.logits(), self.labels
        if self.arch in ("gpt2", "llama"):
            logits, labels = logits[:, :-1], labels[:, 1:]
        if self.arch == "llama":  # padding is masked there, and a label 0 counts
            labels = labels.masked_fill(self.inputs["attention_mask"][:, 1:] == 0, -100)
        ignored = 0 if self.arch in ("gpt2", "t5") else -100  # the authors' padding id
        return cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=ignored)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {**self.vectors, **({} if self.head is None else dict(self.head.named_parameters()))}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_names_and_counts(path: Path) -> None:
    case = Case(path)
    assert set(case.vectors) == set(case.expected["keys"])
    assert sum(vector.numel() for vector in case.vectors.values()) == case.expected["trainable"]


def test_logits(path: Path) -> None:
    for edited, key in ((True, "logits"), (False, "identity_logits")):
        case = Case(path, edited)
        with torch.no_grad():
            torch.testing.assert_close(case.logits(), case.expected[key], atol=1e-5, rtol=0)
    case.method.detach(case.model)
    with torch.no_grad():
        torch.testing.assert_close(case.logits(), case.expected["base_logits"], atol=1e-5, rtol=0)


def test_loss_and_gradients(path: Path) -> None:
    case = Case(path)
    loss = case.loss()
    assert loss.item() == pytest.approx(float(case.expected["loss"]), abs=1e-5)
    loss.backward()
    for name, gradient in case.expected["grads"].items():
        rounding = 2**-8 if gradient.dtype == torch.bfloat16 else 0  # the authors keep Llama's vectors in bfloat16
        mine, theirs = case.vectors[name].grad, gradient.flatten().float()
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=rounding)
    for name, gradient in (case.expected.get("grads_classifier") or {}).items():
        torch.testing.assert_close(dict(case.head.named_parameters())[name].grad, gradient, atol=1e-5, rtol=0)


def test_five_steps(path: Path) -> None:
    case = Case(path)
    train = case.expected["train"]
    epsilon, schedule = (1e-8, "cosine") if case.arch == "llama" else (1e-6, "linear")
    optimizer = build_optimizer(case.parameters(), "AdamW", train["lr"], train["weight_decay"], epsilon)
    total = train["num_training_steps"]
    scheduler = build_schedule(optimizer, schedule, total, 0, train["num_warmup_steps"] / total)
    losses = []
    for _ in range(5):
        loss = case.loss()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert losses == pytest.approx([float(loss) for loss in train["losses"]], abs=1e-3)


@pytest.mark.parametrize("path", [p for p in FILES if p.stem in ("gpt2_ffn", "t5_ffn")], ids=lambda p: p.stem)
def test_generations(path: Path) -> None:
    case = Case(path)
    expected = case.expected["generated"]
    inputs = {key: value for key, value in case.inputs.items() if key != "labels"}
    options: dict[str, Any] = {"num_beams": 1, "max_length": 5}
    if case.arch == "gpt2":  # the authors decode one source at a time, with the settings of Table 11
        inputs["input_ids"] = inputs["input_ids"][:1, :3]
        options = {"num_beams": 10, "no_repeat_ngram_size": 4, "length_penalty": 0.9, "max_length": 23}
    generated = case.model.generate(**inputs, do_sample=False, **options)
    assert torch.equal(generated, expected)
