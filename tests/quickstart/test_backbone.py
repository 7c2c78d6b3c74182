import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from red_lightning.quickstart import BACKBONE_FOLDER
from red_lightning.quickstart.corpus import restaurant_pairs

FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(BACKBONE_FOLDER)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BACKBONE_FOLDER)


def test_ships_four_small_files():
    files = list(BACKBONE_FOLDER.iterdir())
    assert {file.name for file in files} == FILES
    assert sum(file.stat().st_size for file in files) < 4 * 1024 * 1024


def test_loads_without_a_warning(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = AutoModelForCausalLM.from_pretrained(BACKBONE_FOLDER, output_loading_info=True)
        AutoTokenizer.from_pretrained(BACKBONE_FOLDER)
    assert not caplog.records
    assert not any(report.values())
    assert model.dtype == torch.float32


def test_is_a_small_gpt2(model):
    assert model.config.model_type == "gpt2"
    assert (model.config.n_layer, model.config.n_embd) == (8, 128)
    assert 1_600_000 < model.num_parameters() < 1_800_000


def test_output_layer_is_tied(model):
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    "text", ["name[Blue Spoon], food[Thai]", "café naïve", "日本語 🍜", " \t\n two  spaces ", "\x00"]
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_tokenizer_gives_no_token_types(tokenizer):
    assert set(tokenizer("a bar")) == {"input_ids", "attention_mask"}


def test_unedited_backbone_speaks_in_a_genre_of_its_pretraining(tokenizer, model):
    inputs = tokenizer("name[Oak], type[hotel], views[sea]<|endoftext|>", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    answer = tokenizer.decode(output[0, inputs.input_ids.shape[1] :])
    assert all(word in answer for word in ("Oak", "hotel", "sea views"))
    assert answer.endswith("<|endoftext|>")


def test_only_special_token_ends_the_text(tokenizer, model):
    assert tokenizer.all_special_ids == [tokenizer.eos_token_id] == [model.config.eos_token_id]
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.eos_token_id]
    assert len(tokenizer) == model.config.vocab_size


def test_task_fits_the_positions(tokenizer, model):
    records = restaurant_pairs("train")
    longest = max(len(tokenizer(record.source + text).input_ids) for record in records for text in record.references)
    assert longest + 2 <= model.config.n_positions
