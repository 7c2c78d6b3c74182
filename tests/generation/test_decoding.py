"""Decoding a padded batch gives each row what decoding it alone gives."""

import json
import shutil
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from red_lightning import RED
from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.data.collation import collate_for_decoding
from red_lightning.generation import Decoding, decode
from tests.backbones_zoo import FAMILIES, MASKED, build, build_tokenizer

SOURCES = [
    "a",
    "name[Blue Spice], food[Thai], area[riverside], priceRange[cheap], near[Burger King], customer rating[5 out of 5]",
    "Zizzi",
    "The Vaults, city centre",
    "name[The Vaults], eatType[pub], priceRange[more than £30]",
    "!?",
    "near[Café Adriatic], familyFriendly[yes] " * 3,
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost more than so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def edited(family: str, seed: int = 6) -> nn.Module:
    """A random model with random RED vectors; with this seed its texts depend on the sources."""
    model = build(family, seed)
    generator = torch.Generator().manual_seed(seed)
    for vector in RED(["ffn", "attention"]).apply(model).values():
        vector.data += 0.3 * torch.randn(vector.shape, generator=generator)
    return model


def decode_texts(
    model: nn.Module, texts: list[str], decoding: Decoding, tokenizer: Any = None, eos: bool = True
) -> list[str]:
    tokenizer = tokenizer or build_tokenizer()
    ends = [tokenizer.eos_token_id] * eos
    rows = [
        {"row": 0, "source": [*tokenizer(text)["input_ids"], *ends], "text": text, "references": []} for text in texts
    ]
    batch = collate_for_decoding(rows, tokenizer.pad_token_id, model.config.is_encoder_decoder)
    return decode(model, batch["input_ids"], batch["attention_mask"], tokenizer, decoding)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize(("beams", "ngram"), [(1, 2), (1, 0), (4, 2), (4, 3), (4, 4)])
def test_a_batch_equals_its_rows(family: str, beams: int, ngram: int) -> None:
    decoding = Decoding(num_beams=beams, no_repeat_ngram_size=ngram, max_new_tokens=8)
    model = edited(family)
    alone = [decode_texts(model, [text], decoding)[0] for text in SOURCES]
    assert len(set(alone)) > 1  # the sources matter
    for size in (2, 3, 5, 7):
        batches = [SOURCES[start : start + size] for start in range(0, len(SOURCES), size)]
        assert [text for batch in batches for text in decode_texts(model, batch, decoding)] == alone, size


def test_padding_with_eos_changes_nothing() -> None:
    """GPT-2 and Llama have no padding token."""
    decoding = Decoding(num_beams=3, max_new_tokens=8)
    model, tokenizer = edited("gpt2"), build_tokenizer()
    with_padding = decode_texts(model, SOURCES, decoding)
    tokenizer.pad_token = tokenizer.eos_token
    assert decode_texts(model, SOURCES, decoding, tokenizer) == with_padding


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_greedy_decoding_takes_the_likeliest_token(family: str) -> None:
    """Against a loop over the whole sequence, without a cache."""
    model, tokenizer = edited(family), build_tokenizer()
    for text in SOURCES[:4]:
        source = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        start = torch.tensor([[model.config.decoder_start_token_id]]) if family == "t5" else source
        sequence = start
        for _ in range(8):
            inputs = {"input_ids": source, "decoder_input_ids": sequence} if family == "t5" else {"input_ids": sequence}
            with torch.no_grad():
                token = model(**inputs).logits[:, -1:].argmax(-1)
            sequence = torch.cat([sequence, token], dim=1)
            if token.item() == tokenizer.eos_token_id:
                break
        expected = tokenizer.decode(sequence[0, start.shape[1] :], skip_special_tokens=True).split("\n\n")[0].strip()
        assert decode_texts(model, [text], Decoding(1, no_repeat_ngram_size=0, max_new_tokens=8)) == [expected]


TUNING = {"no_repeat_ngram_size": 5, "repetition_penalty": 1.1, "stop_at_blank_line": False}
"""What the paper decodes with after instruction tuning."""
SHORT = [SOURCES[index] for index in (0, 2, 3, 5)]  # the tiny OPT has 64 positions


@pytest.mark.parametrize("padding", ["<pad>", "<eos>"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in MASKED])
def test_every_familys_batch_is_what_transformers_writes_for_each_prompt(family: str, padding: str) -> None:
    """Left-padded rows against transformers' own penalty on each prompt alone; padding must not count as said."""
    model, tokenizer = edited(family), build_tokenizer()
    tokenizer.pad_token = padding
    decoding = Decoding(num_beams=1, max_new_tokens=12, **{**TUNING, "repetition_penalty": 1.5})
    expected = []
    for text in SHORT:
        prompt = torch.tensor([tokenizer(text)["input_ids"]])
        ids = model.generate(  # type: ignore[operator]
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            repetition_penalty=1.5,
            no_repeat_ngram_size=5,
            max_new_tokens=12,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = ids[0] if model.config.is_encoder_decoder else ids[0, prompt.shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert decode_texts(model, SHORT, decoding, tokenizer, eos=False) == expected
    without = Decoding(num_beams=1, max_new_tokens=12, **{**TUNING, "repetition_penalty": 1.0})
    free = decode_texts(model, SHORT, without, tokenizer, eos=False)
    assert free != expected  # the penalty matters


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_the_penalty_is_the_same_in_beams(family: str) -> None:
    model, tokenizer = edited(family), build_tokenizer()
    tokenizer.pad_token = "<eos>"
    decoding = Decoding(num_beams=3, max_new_tokens=8, **TUNING)
    alone = [decode_texts(model, [text], decoding, tokenizer, eos=False)[0] for text in SHORT]
    assert decode_texts(model, SHORT, decoding, tokenizer, eos=False) == alone


def test_a_token_of_the_template_ends_a_text() -> None:
    model, tokenizer = edited("llama"), build_tokenizer()
    decoding = Decoding(num_beams=1, max_new_tokens=12, **TUNING)
    ids = torch.tensor([tokenizer(SOURCES[3])["input_ids"]])
    (text,) = decode(model, ids, torch.ones_like(ids), tokenizer, decoding)
    third = tokenizer(text)["input_ids"][2]
    (ended,) = decode(model, ids, torch.ones_like(ids), tokenizer, decoding, stop_ids=[third])
    assert len(ended) < len(text) and text.startswith(ended)
    assert tokenizer.decode([third]) in ended


@pytest.mark.parametrize("beams", [1, 4])
def test_no_ngram_occurs_twice(beams: int) -> None:
    model, tokenizer = edited("t5"), build_tokenizer()
    captured: list[list[int]] = []
    tokenizer_decode = tokenizer.batch_decode
    tokenizer.batch_decode = lambda ids, **options: (captured.extend(ids.tolist()), tokenizer_decode(ids, **options))[1]
    decode_texts(model, SOURCES, Decoding(beams, no_repeat_ngram_size=2, max_new_tokens=30), tokenizer)
    for ids in captured:
        tokens = [token for token in ids if token != tokenizer.pad_token_id]
        pairs = list(pairwise(tokens))
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_the_folders_generation_config_changes_nothing(
    family: str, beams: int, request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = request.getfixturevalue(f"{family}_folder")
    folder = shutil.copytree(plain, tmp_path / "sampling")
    sampling = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 5,
        "max_length": 64,
        "min_length": 7,
        "min_new_tokens": 6,
        "num_beams": 5,
        "num_return_sequences": 2,
        "repetition_penalty": 3.0,
        "encoder_no_repeat_ngram_size": 2,
        "no_repeat_ngram_size": 1,
        "forced_eos_token_id": 5,
        "suppress_tokens": [20, 40, 60, 80, 100],
        "bos_token_id": 7,
        "eos_token_id": 9,
        "pad_token_id": 8,
    }
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    options, decoding = BackboneOptions(), Decoding(beams, no_repeat_ngram_size=3, max_new_tokens=8)
    texts = []
    for place in (plain, folder):
        source = find(str(place), options)
        model, tokenizer = load_generator(source, options).eval(), load_tokenizer(source, options)
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            texts.append(decode_texts(model, SOURCES, decoding, tokenizer))
        assert capfd.readouterr() == ("", "")
    assert texts[0] == texts[1]


class Speaker:
    """A backbone that says given texts."""

    def __init__(self, texts: list[str]) -> None:
        self.config, self.generation_config = build("gpt2").config, None
        self.tokens = [build_tokenizer()(text)["input_ids"] for text in texts]

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        longest = max(map(len, self.tokens))
        new = torch.tensor([[*tokens, *[1] * (longest - len(tokens))] for tokens in self.tokens])
        return torch.cat([input_ids, new], dim=1)


@pytest.mark.parametrize(
    ("stop", "expected"), [(True, ["one\ntwo", "", "a"]), (False, ["one\ntwo\n\nthree", "late", "a"])]
)
def test_a_blank_line_ends_the_text(stop: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("red_lightning.generation.decoding.generates_with_cache", lambda *_: True)  # it has no logits
    speaker: Any = Speaker([" one\ntwo\n\nthree", "\n\nlate", " a <eos>"])
    ids = torch.tensor([[5, 0]] * 3)
    assert decode(speaker, ids, torch.ones_like(ids), build_tokenizer(), Decoding(stop_at_blank_line=stop)) == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_an_encoder_that_was_run_already_is_used(beams: int) -> None:
    model, tokenizer = edited("t5"), build_tokenizer()
    decoding = Decoding(num_beams=beams, max_new_tokens=8)
    expected = decode_texts(model, SOURCES, decoding, tokenizer)
    rows = [
        {"row": 0, "source": [*tokenizer(text)["input_ids"], tokenizer.eos_token_id], "text": text, "references": []}
        for text in SOURCES
    ]
    batch = collate_for_decoding(rows, tokenizer.pad_token_id, True)
    inputs = (batch["input_ids"], batch["attention_mask"])
    with torch.no_grad():
        encoded = model.get_encoder()(input_ids=inputs[0], attention_mask=inputs[1])
    calls: list[int] = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    assert decode(model, *inputs, tokenizer, decoding, encoded) == expected
    assert calls == []
