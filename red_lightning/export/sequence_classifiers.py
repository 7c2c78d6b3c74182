"""Sequence classifiers of transformers that equal a backbone with a trained head."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor
from transformers import AutoModelForSequenceClassification

from red_lightning.export.equivalents import Form
from red_lightning.families import record_of
from red_lightning.families.architecture import Pooling


def sequence_classifier(
    config: Any, pooling: Pooling, head: Mapping[str, Tensor], labels: Sequence[str] | None
) -> tuple[Form, dict[str, Tensor]] | None:
    """Transformers' classifier of a family, if it computes what our head does on right-padded texts.

    Args:
        config: The backbone's configuration.
        pooling: Pooling of the head.
        head: The head's tensors, such as ``out_proj.weight``.
        labels: The classes in the order of their numbers; empty for a number.

    Returns:
        The classifier, and the head's tensors by their name in it; None if the family's own computes something else.
    """
    record = record_of(config)
    classifier = record.classifiers.get(config.model_type) if record else None
    layers = classifier.heads.get((pooling, "dense.weight" in head)) if classifier else None
    if classifier is None or layers is None:
        return None
    config = deepcopy(config)
    outputs = len(head["out_proj.bias"])
    names = labels or [f"LABEL_{number}" for number in range(outputs)]
    config.id2label = dict(enumerate(names))  # their count is the number of classes
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "regression" if outputs == 1 else "single_label_classification"
    for name, value in classifier.settings.items():
        setattr(config, name, value)
    if hasattr(config, "pooler_hidden_size"):
        config.pooler_hidden_size = config.hidden_size
    renamed = {}
    for name, tensor in head.items():
        layer, _, leaf = name.partition(".")
        renamed[f"{layers[layer]}.{leaf}"] = tensor
    return Form(AutoModelForSequenceClassification, config, base=classifier.base), renamed
