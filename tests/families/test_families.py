"""Which representation stands for a text."""

from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from red_lightning.backbones.classification_head import pooling_of
from red_lightning.families import ARCHITECTURES, Pooling


@pytest.mark.parametrize(
    ("model_type", "pooling"),
    [
        ("roberta", "first"),
        ("xlm-roberta", "first"),
        ("distilbert", "first"),
        ("deberta-v2", "first"),
        ("electra", "first"),
        ("modernbert", "first"),
        ("bert", "pooler"),
        ("albert", "pooler"),
        ("gpt2", "last"),
        ("llama", "last"),
        ("mistral", "last"),
        ("qwen2", "last"),
        ("qwen3", "last"),
        ("gemma", "last"),
        ("gemma2", "last"),
        ("gemma3_text", "last"),
        ("phi", "last"),
        ("phi3", "last"),
        ("opt", "last"),
        ("gpt_neox", "last"),
        ("t5", None),
        ("camembert", "first"),
        ("mpnet", "first"),
        ("bart", None),
        # without a record
        ("fnet", "first"),
        ("codegen", "last"),
        ("led", None),
    ],
)
def test_pooling_of_families(model_type: str, pooling: Pooling | None) -> None:
    assert pooling_of(AutoConfig.for_model(model_type)) == pooling


@pytest.mark.parametrize(("said", "pooling"), [("cls", "first"), ("mean", "mean")])
@pytest.mark.parametrize("model_type", ["modernbert", "bert", "gpt2", "camembert"])
def test_what_the_config_says_wins(model_type: str, said: str, pooling: Pooling) -> None:
    assert pooling_of(AutoConfig.for_model(model_type, classifier_pooling=said)) == pooling


@pytest.mark.parametrize("said", [None, "late", ["mean"]])
def test_unknown_words_in_the_config_are_not_heard(said: object) -> None:
    assert pooling_of(SimpleNamespace(model_type="bert", classifier_pooling=said)) == "pooler"


@pytest.mark.parametrize("model_type", ["camembert", "bert", "fnet"])
def test_an_encoder_made_a_decoder_is_read_at_its_end(model_type: str) -> None:
    assert pooling_of(AutoConfig.for_model(model_type, is_decoder=True)) == "last"


def test_a_family_from_a_repository_is_read_at_its_beginning() -> None:
    assert pooling_of(SimpleNamespace(model_type="from a repository")) == "first"


def test_no_model_type_has_two_records() -> None:
    model_types = [model_type for record in ARCHITECTURES for model_type in record.model_types]
    assert len(model_types) == len(set(model_types))
