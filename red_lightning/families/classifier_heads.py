"""Sequence classifiers of transformers that compute what a trained head does, for :attr:`Architecture.classifiers`."""

from collections.abc import Mapping

from red_lightning.families.architecture import Classifier, Pooling

# Sequence classifiers of transformers that compute what our head does. RoBERTa's head is dense, tanh, projection on
# token 0. The poolers of BERT and ALBERT are dense and tanh on token 0, and a projection follows; so are DeBERTa's with
# tanh. XLM has the projection only. Those of the other families put other functions between.
Heads = Mapping[tuple[Pooling, bool], Mapping[str, str]]
PROJECTION = {"out_proj": "classifier"}
ROBERTA_HEAD: Heads = {("first", True): {"dense": "classifier.dense", "out_proj": "classifier.out_proj"}}
DEBERTA_CLASSIFIER = Classifier(
    "deberta.", {("first", True): {"dense": "pooler.dense", **PROJECTION}}, {"pooler_hidden_act": "tanh"}
)
XLM_CLASSIFIER = Classifier(
    "transformer.",
    {("first", False): {"out_proj": "sequence_summary.summary"}},
    {"summary_type": "first", "summary_use_proj": True, "summary_proj_to_labels": True, "summary_activation": None},
)


def bert_heads(base: str, pooled: bool = True) -> Heads:
    """Return the heads of a classifier with BERT's pooler; ``pooled`` if the pretrained pooler can be used too."""
    first: Heads = {("first", True): {"dense": f"{base}.pooler.dense", **PROJECTION}}
    return {**first, ("pooler", False): PROJECTION} if pooled else first
