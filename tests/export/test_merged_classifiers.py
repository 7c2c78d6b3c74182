"""Classifiers folded with their head into transformers' own, or into a backbone with the head beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from red_lightning.backbones.classification_head import HeadOptions, pool
from red_lightning.export import Merged, export_merged, largest_difference
from red_lightning.methods import RED
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import save_backbone
from tests.export.exports import TOKENS, in_plain_transformers, trained

LABELS = ["entailment", "neutral", "contradiction"]
OWN = {
    "roberta": HeadOptions("first", True),
    "xlm_roberta": HeadOptions("first", True),
    "bert": HeadOptions("pooler", False),
    "bert_first": HeadOptions("first", True),
    "albert": HeadOptions("pooler", False),
    "albert_first": HeadOptions("first", True),
    "deberta": HeadOptions("first", True),
}
"""What transformers has a classifier of its own for."""
MASK = torch.ones_like(TOKENS)
MASK[1, 5:] = 0


@torch.no_grad()
def expected_logits(model: Any, head: Any, pooling: Any) -> Tensor:
    return head(pool(model(input_ids=TOKENS, attention_mask=MASK), MASK, pooling))


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Merged, Tensor, Tensor]]:
    """By name: what was exported, our logits, and those of plain transformers in another process."""
    root = tmp_path_factory.mktemp("classifiers")
    exported, expected = {}, {}
    for name, options in OWN.items():
        backbone = save_backbone(name.removesuffix("_first"), root / "backbones" / name)
        model, head = trained(root / "runs" / name, backbone, RED(RED_PLUS_SITES), options, LABELS)
        expected[name] = expected_logits(model, head, options.pooling)
        exported[name] = export_merged(root / "runs" / name, root / name)
    got = in_plain_transformers(list(exported.values()), root)
    return {name: (exported[name], expected[name], got[name]) for name in OWN}


@pytest.mark.parametrize("name", OWN)
def test_transformers_own_classifier_computes_the_same(
    name: str, every: dict[str, tuple[Merged, Tensor, Tensor]]
) -> None:
    exported, expected, got = every[name]
    assert exported.auto == "AutoModelForSequenceClassification" and not exported.notes
    assert (got - expected).abs().max() < 1e-5
    config = AutoModelForSequenceClassification.from_pretrained(exported.folder).config
    assert config.id2label == dict(enumerate(LABELS)) and config.label2id["neutral"] == 1


def test_a_number_has_one_output(tmp_path: Path) -> None:
    backbone = save_backbone("roberta", tmp_path / "roberta")
    model, head = trained(tmp_path / "run", backbone, RED(), OWN["roberta"])
    export_merged(tmp_path / "run", tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert plain.config.num_labels == 1 and plain.config.problem_type == "regression"
    with torch.no_grad():
        got = plain(input_ids=TOKENS, attention_mask=MASK).logits
    assert (got - expected_logits(model, head, "first")).abs().max() < 1e-5


@pytest.mark.parametrize(("family", "pooling"), [("electra", "first"), ("gpt2", "last"), ("bert", "mean")])
def test_another_head_lies_beside_its_backbone(family: str, pooling: Any, tmp_path: Path) -> None:
    options = HeadOptions(pooling, pooling != "last")
    backbone = save_backbone(family, tmp_path / family)
    model, head = trained(tmp_path / "run", backbone, RED(), options, LABELS)
    exported = export_merged(tmp_path / "run", tmp_path / "merged")
    assert exported.auto == "AutoModel" and "head.safetensors" in exported.notes[-1]
    plain = AutoModel.from_pretrained(tmp_path / "merged").eval()
    weights = load_file(tmp_path / "merged" / "head.safetensors")
    with torch.no_grad():
        pooled = pool(plain(input_ids=TOKENS, attention_mask=MASK), MASK, pooling)
        if "dense.weight" in weights:
            pooled = torch.tanh(pooled @ weights["dense.weight"].T + weights["dense.bias"])
        got = pooled @ weights["out_proj.weight"].T + weights["out_proj.bias"]
    assert (got - expected_logits(model, head, pooling)).abs().max() < 1e-5
    with safe_open(tmp_path / "merged" / "head.safetensors", "pt") as file:
        assert f'"pooling": "{pooling}"' in file.metadata()["head"]
    assert largest_difference(exported, tmp_path / "run")[0] < 1e-5
