"""Sequence classifiers of transformers that equal a backbone with a trained head."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor
from transformers import AutoModelForSequenceClassification

from red_lightning.export.equivalents import Form

_ROBERTA = {"dense": "classifier.dense", "out_proj": "classifier.out_proj"}
_CONTEXT_POOLER = {"dense": "pooler.dense", "out_proj": "classifier"}
_PROJECTION = {"out_proj": "classifier"}
_SUMMARY = {"out_proj": "sequence_summary.summary"}


def _pooler(base: str) -> dict[str, str]:
    return {"dense": f"{base}.pooler.dense", "out_proj": "classifier"}


# By model type, pooling and whether the head is hidden: our layers' names there.
# Roberta's head is dense, tanh, projection on token 0. Bert's and Albert's poolers are dense and tanh on token 0, and a
# projection follows; so are Deberta's with tanh. XLM has the projection alone. Those of the other families put other
# functions between.
_LAYERS: dict[tuple[str, str, bool], dict[str, str]] = {
    ("roberta", "first", True): _ROBERTA,
    ("xlm-roberta", "first", True): _ROBERTA,
    ("xlm-roberta-xl", "first", True): _ROBERTA,
    ("roberta-prelayernorm", "first", True): _ROBERTA,
    ("data2vec-text", "first", True): _ROBERTA,
    ("camembert", "first", True): _ROBERTA,
    ("jina_embeddings_v3", "first", True): _ROBERTA,
    ("mpnet", "first", True): _ROBERTA,
    ("bert", "first", True): _pooler("bert"),
    ("bert", "pooler", False): _PROJECTION,
    ("ernie", "first", True): _pooler("ernie"),
    ("ernie", "pooler", False): _PROJECTION,
    ("megatron-bert", "first", True): _pooler("bert"),
    ("megatron-bert", "pooler", False): _PROJECTION,
    ("rembert", "first", True): _pooler("rembert"),
    ("rembert", "pooler", False): _PROJECTION,
    ("nomic_bert", "first", True): _pooler("nomic_bert"),
    ("gte", "first", True): _pooler("gte"),
    ("albert", "first", True): {"dense": "albert.pooler", "out_proj": "classifier"},
    ("albert", "pooler", False): _PROJECTION,
    ("deberta", "first", True): _CONTEXT_POOLER,
    ("deberta-v2", "first", True): _CONTEXT_POOLER,
    ("xlm", "first", False): _SUMMARY,
    ("flaubert", "first", False): _SUMMARY,
}
_BASES = {
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "xlm-roberta-xl": "roberta.",
    "roberta-prelayernorm": "roberta_prelayernorm.",
    "data2vec-text": "data2vec_text.",
    "camembert": "roberta.",
    "jina_embeddings_v3": "roberta.",
    "mpnet": "mpnet.",
    "bert": "bert.",
    "ernie": "ernie.",
    "megatron-bert": "bert.",
    "rembert": "rembert.",
    "nomic_bert": "nomic_bert.",
    "gte": "gte.",
    "albert": "albert.",
    "deberta": "deberta.",
    "deberta-v2": "deberta.",
    "xlm": "transformer.",
    "flaubert": "transformer.",
}
_TANH = {"pooler_hidden_act": "tanh"}
_FIRST = {
    "summary_type": "first",
    "summary_use_proj": True,
    "summary_proj_to_labels": True,
    "summary_activation": None,
}
_SETTINGS: dict[str, dict[str, Any]] = {"deberta": _TANH, "deberta-v2": _TANH, "xlm": _FIRST, "flaubert": _FIRST}
"""What the configuration must say for the classifier to compute what our head does."""


def sequence_classifier(
    config: Any, pooling: str, head: Mapping[str, Tensor], labels: Sequence[str] | None
) -> tuple[Form, dict[str, Tensor]] | None:
    """Transformers' classifier of a family, if it computes what our head does on right-padded texts.

    Args:
        config: The backbone's configuration.
        pooling: Which representation stands for a text.
        head: The head's tensors, such as ``out_proj.weight``.
        labels: The classes in the order of their numbers; empty for a number.

    Returns:
        The classifier, and the head's tensors by their name in it; None if the family's own computes something else.
    """
    layers = _LAYERS.get((config.model_type, pooling, "dense.weight" in head))
    if layers is None:
        return None
    config = deepcopy(config)
    outputs = len(head["out_proj.bias"])
    names = labels or [f"LABEL_{number}" for number in range(outputs)]
    config.id2label = dict(enumerate(names))  # their count is the number of classes
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "regression" if outputs == 1 else "single_label_classification"
    for name, value in _SETTINGS.get(config.model_type, {}).items():
        setattr(config, name, value)
    if hasattr(config, "pooler_hidden_size"):
        config.pooler_hidden_size = config.hidden_size
    renamed = {}
    for name, tensor in head.items():
        layer, _, leaf = name.partition(".")
        renamed[f"{layers[layer]}.{leaf}"] = tensor
    return Form(AutoModelForSequenceClassification, config, base=_BASES[config.model_type]), renamed
