"""The pieces of a text make the text, and none is taken back."""

import torch

from red_lightning.generation.stop_texts import before_stop
from red_lightning.generation.streaming import Stream
from tests.backbones_zoo import build_tokenizer


def pieces(text: str) -> list[str]:
    """What a stream says while the tokens of a text come one by one."""
    tokenizer, said = build_tokenizer(), []
    stream = Stream(lambda tokens, _: tokenizer.decode(tokens, skip_special_tokens=True).strip(), said.append)
    stream.put(torch.tensor([[3, 4, 5]]))  # the prompt
    for token in tokenizer(text)["input_ids"]:
        stream.put(torch.tensor([token]))
    stream.end()
    return said


def test_pieces_make_the_text() -> None:
    for text in ("Blue Spice serves Thai food.", "  Café £30, 日本 🍜  ", "two  blanks\n\nand lines \n", "", "   "):
        assert "".join(pieces(text)) == text.strip()


def test_pieces_come_one_by_one_and_characters_are_whole() -> None:
    said = pieces("a £ 🍜 b")
    assert said == ["a", " £", " 🍜", " b"]
    assert not any("\ufffd" in piece for piece in said)


def test_bytes_that_never_become_a_character_come_at_the_end() -> None:
    tokenizer, said = build_tokenizer(), []
    stream = Stream(lambda tokens, _: tokenizer.decode(tokens), said.append)
    stream.put(torch.tensor([[1]]))
    for token in tokenizer("ok £")["input_ids"][:-1]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(said) == "ok \ufffd"


def test_an_end_that_may_become_a_stop_text_waits() -> None:
    tokenizer, said = build_tokenizer(), []
    stops = ["\nUser:", "END"]
    stream = Stream(lambda tokens, whole: before_stop(tokenizer.decode(tokens), stops, whole), said.append)
    stream.put(torch.tensor([[1]]))
    for token in tokenizer("An E\nUse it\nUser: more")["input_ids"]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(said) == "An E\nUse it"
    assert before_stop("THE EN", stops) == "THE EN" and before_stop("THE EN", stops, whole=False) == "THE "
