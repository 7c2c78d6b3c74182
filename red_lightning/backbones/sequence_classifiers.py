"""Classifiers of transformers' own that compute what a backbone and a trained head do."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor
from transformers import AutoModelForSequenceClassification

from red_lightning.backbones.equivalents import Form

# By model type, pooling and whether the head is hidden: our layers' names there, and settings.
# Roberta's head is dense, tanh, projection on token 0. Bert's and Albert's poolers are dense and tanh on token 0, and a
# projection follows; so are Deberta's with tanh. Those of the other families put other functions between.
_LAYERS: dict[tuple[str, str, bool], dict[str, str]] = {
    ("roberta", "first", True): {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ("xlm-roberta", "first", True): {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ("bert", "first", True): {"dense": "bert.pooler.dense", "out_proj": "classifier"},
    ("bert", "pooler", False): {"out_proj": "classifier"},
    ("albert", "first", True): {"dense": "albert.pooler", "out_proj": "classifier"},
    ("albert", "pooler", False): {"out_proj": "classifier"},
    ("deberta-v2", "first", True): {"dense": "pooler.dense", "out_proj": "classifier"},
}
_BASES = {
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "bert": "bert.",
    "albert": "albert.",
    "deberta-v2": "deberta.",
}


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
    if config.model_type == "deberta-v2":
        config.pooler_hidden_act, config.pooler_hidden_size = "tanh", config.hidden_size
    renamed = {}
    for name, tensor in head.items():
        layer, _, leaf = name.partition(".")
        renamed[f"{layers[layer]}.{leaf}"] = tensor
    return Form(AutoModelForSequenceClassification, config, base=_BASES[config.model_type]), renamed
