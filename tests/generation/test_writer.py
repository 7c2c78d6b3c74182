"""A writer's texts: those of each prompt alone, put to the model as it was trained."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from red_lightning import RED
from red_lightning.adapters import Edited
from red_lightning.backbones.classification_head import ClassificationHead
from red_lightning.errors import UsageError
from red_lightning.generation import FOR_E2E, FOR_INSTRUCTIONS, Decoding, Writer
from red_lightning.generation import writer as writing
from red_lightning.methods import PrefixTuning
from tests.backbones_zoo import build, build_tokenizer
from tests.generation.test_decoding import SOURCES, edited

TASKS = {"gpt2": ["DataToText", None], "llama": ["InstructionTuning"], "t5": ["DataToText", None]}
SEED = 13
"""With which the texts depend on the sources, on the lowest versions and on the newest."""

CASES = [(family, task) for family, tasks in TASKS.items() for task in tasks]


def model(family: str, task: str | None, **record: Any) -> Edited:
    """A random model with random edits of a task."""
    known = {"task": task, "method": RED(["ffn", "attention"]).describe(), **record}
    return Edited(edited(family, SEED), build_tokenizer(), None, known)


def writer(family: str, task: str | None, record: dict[str, Any] | None = None, **options: Any) -> Writer:
    """Its writer, which writes little."""
    made = Writer(model(family, task, **(record or {})), **options)
    made.decoding = replace(made.decoding, max_new_tokens=8)
    return made


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_text_does_not_depend_on_its_batch_nor_on_streaming(family: str, task: str | None) -> None:
    one, sources = writer(family, task, batch_size=3), SOURCES[:5]
    kept = {"max_new_tokens": one.decoding.max_new_tokens}
    papers = replace(FOR_E2E if task == "DataToText" else FOR_INSTRUCTIONS, **kept)
    drawn = Decoding(temperature=1.0, top_p=0.9, top_k=30, min_p=0.001, **kept)
    for decoding in (papers, drawn):
        one.decoding = decoding
        texts = one.write(sources)
        assert len(set(texts)) > 1
        said: list[str] = []
        for source, text in zip(sources, texts, strict=True):
            assert one.write([source]) == [text]
            said.clear()
            assert one.stream(source, said.append) == text
            assert "".join(said) == text
    one.decoding = replace(one.decoding, seed=1)
    assert one.write(sources) != texts


def test_near_the_last_position_a_row_has_as_much_room_as_alone() -> None:
    one = writer("llama", "InstructionTuning", batch_size=8)  # 256 positions
    one.decoding = replace(one.decoding, max_new_tokens=40)
    prompts = ["a " * 115, "a " * 117, "b " * 115, "Zizzi", "a " * 118 + "!"]
    lengths = [len(row) for row in one.encode(prompts)]
    assert max(lengths) + 40 > 256 > max(lengths)
    alone = [one.write([prompt])[0] for prompt in prompts]
    assert one.write(prompts) == alone
    generous = Writer(one.edited, one.decoding)
    generous.prompts.positions = None
    assert len(generous.write(prompts[:1])[0]) > len(alone[0])  # the positions did end it


def test_instructions_are_put_to_the_model_in_the_template_that_was_trained() -> None:
    question = [{"role": "user", "content": "What is RED?"}]
    turns = [*question, {"role": "assistant", "content": "A method."}, {"role": "user", "content": "Whose?"}]
    paper = writer("llama", "InstructionTuning", {"data": {"template": "paper"}})
    decode = paper.edited.tokenizer.decode
    assert decode(paper.encode(["What is RED?"])[0]) == "Human: What is RED?\n\nAssistant:"
    expected = "Human: What is RED?\n\nAssistant: A method.<eos>\n\nHuman: Whose?\n\nAssistant:"
    assert [decode(row) for row in paper.encode([turns])] == [expected]
    assert paper.answer([question]) == paper.write(["What is RED?"])
    chat = model("llama", "InstructionTuning", data={"template": "chat"})
    chat.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    rows = Writer(chat).encode([turns])
    assert decode(rows[0]) == "[user]What is RED?<eos>[assistant]A method.<eos>[user]Whose?<eos>[assistant]"


@pytest.mark.parametrize(("family", "task"), [("gpt2", "DataToText"), ("t5", "DataToText"), ("gpt2", None)])
def test_sources_end_with_eos_and_plain_texts_do_not(family: str, task: str | None) -> None:
    one = writer(family, task)
    (tokens,) = one.encode(["name[Zizzi]"])
    assert tokens == one.edited.tokenizer("name[Zizzi]")["input_ids"] + [0] * (task is not None)


def test_decoding_is_the_runs_or_greedy() -> None:
    greedy = Decoding(num_beams=1, no_repeat_ngram_size=0, repetition_penalty=1.0, stop_at_blank_line=False)
    assert Writer(model("gpt2", "DataToText")).decoding == greedy
    assert Writer(model("gpt2", None)).decoding == replace(greedy, max_new_tokens=768)
    assert Writer(model("llama", "InstructionTuning")).decoding == replace(greedy, max_new_tokens=768)
    run = {"num_beams": 2, "max_new_tokens": 9, "of_a_newer_version": 1}
    assert Writer(model("gpt2", "DataToText", decoding=run)).decoding == Decoding(num_beams=2, max_new_tokens=9)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"decoding": ["beams"]}, r"\['beams'\] for the decoding"),
        ({"decoding": {"length_penalty": "x"}}, "'x' for decoding.length_penalty"),
        ({"decoding": {"no_repeat_ngram_size": 1.5}}, "1.5 for decoding.no_repeat_ngram_size"),
        ({"decoding": {"stop_at_blank_line": "no"}}, "'no' for decoding.stop_at_blank_line"),
        ({"decoding": {"num_beams": True}}, "True for decoding.num_beams"),
        ({"decoding": {"num_beams": 10**9}}, "decoding.num_beams is 1000000000, but must lie between 1 and 1000"),
        ({"decoding": {"seed": None}}, "None for decoding.seed"),
        ({"data": {"max_source_length": -5}}, "-5 for data.max_source_length"),
        ({"data": {"max_source_length": "64"}}, "'64' for data.max_source_length"),
        ({"method": {"name": "RED_PLUS_SITES"}}, "unknown method 'RED_PLUS_SITES'"),
    ],
)
def test_a_damaged_record_is_one_sentence(record: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Writer(model("gpt2", "DataToText", **record))
    assert "\n" not in str(caught.value)


def gpu_is_full(*_: Any, **__: Any) -> list[str]:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


@pytest.mark.parametrize("full", [gpu_is_full, lambda *_, **__: torch.empty(1 << 60)])
def test_full_memory_is_one_sentence(full: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = writer("gpt2", "DataToText")
    monkeypatch.setattr(writing, "decode", full)
    with pytest.raises(UsageError, match=r"^the memory is full while texts are written; lower the batch") as caught:
        one.write(["a"])
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(writing, "decode", Mock(side_effect=RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        one.write(["a"])


def test_switched_off_edits_write_what_the_backbone_does() -> None:
    one = writer("gpt2", "DataToText")
    before = one.write(SOURCES)
    plain = Writer(Edited(build("gpt2", SEED), build_tokenizer(), None, one.edited.record), one.decoding)
    with one.unedited():
        assert one.write(SOURCES) == plain.write(SOURCES) != before
    assert one.write(SOURCES) == before


def test_a_classifier_is_sent_to_predict() -> None:
    labels = Edited(build("gpt2"), build_tokenizer(), ClassificationHead(32, 2), {"task": "Classification"})
    for one in (labels, model("t5", "TextToTextClassification")):
        with pytest.raises(UsageError, match=r"label texts.*red_lightning predict"):
            Writer(one)


ASK: Callable[[str], list[dict[str, str]]] = lambda text: [{"role": "user", "content": text}]  # noqa: E731


@pytest.mark.parametrize(
    ("task", "prompts", "said"),
    [
        ("DataToText", ["a", "b " * 70], r"prompt 2 has \d+ tokens, but the edits were trained on .* at most 64"),
        ("InstructionTuning", ["b " * 300], r"prompt 1 has \d+ tokens, but the backbone has 256 positions"),
        (None, ["ok", " "], "prompt 2 is empty"),
        (None, ["ok", "a\udcffb"], "prompt 2 is no UTF-8 text; write character 2"),
        ("InstructionTuning", [ASK("a\ud800")], "prompt 1 is no UTF-8 text; write character 2"),
        ("DataToText", [ASK("a")], "prompt 1 is a conversation, but this model continues texts"),
        ("InstructionTuning", [[{"role": "assistant", "content": "a"}]], "prompt 1 has no user message to answer"),
        ("InstructionTuning", [ASK(" ")], "prompt"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(
    task: str | None, prompts: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = writer("llama", task, {"data": {"max_source_length": 64}})
    monkeypatch.setattr("red_lightning.generation.writer.decode", lambda *_, **__: pytest.fail("something was written"))
    with pytest.raises(UsageError, match=said):
        one.write(prompts)


def test_long_prompts_are_cut_where_that_is_asked_for() -> None:
    source = writer("gpt2", "DataToText", {"data": {"max_source_length": 8}}, overlong="cut")
    tokens = source.edited.tokenizer("name[Zizzi], food[Thai]")["input_ids"]
    assert source.encode(["name[Zizzi], food[Thai]"]) == [[*tokens[:7], 0]]  # as in training
    asked = writer("llama", "InstructionTuning", overlong="cut")
    whole = asked.edited.tokenizer("Human: " + "word " * 300 + "\n\nAssistant:")["input_ids"]
    (kept,) = asked.encode(["word " * 300])
    assert kept == whole[-len(kept) :] and len(kept) == 255 - 8
    assert asked.write(["word " * 300])[0]


def test_virtual_tokens_take_positions() -> None:
    backbone = build("llama")
    PrefixTuning(length=16).apply(backbone)
    record = {"task": "InstructionTuning", "method": PrefixTuning(length=16).describe()}
    assert Writer(Edited(backbone, build_tokenizer(), None, record)).prompts.positions == 240


def test_nothing_is_asked_nothing_is_written() -> None:
    assert writer("gpt2", None).write([]) == []


def test_gradients_are_not_kept() -> None:
    one = writer("gpt2", "DataToText")
    one.write(["a"])
    assert all(parameter.grad is None for parameter in one.edited.backbone.parameters())
    assert torch.is_grad_enabled()


def test_what_a_record_leaves_open_is_the_tasks_own() -> None:
    for task, default in (("InstructionTuning", Decoding(max_new_tokens=768)), ("DataToText", Decoding())):
        assert writing.trained_decoding({"task": task}) == default
        assert writing.trained_decoding({"task": task, "decoding": {"seed": 3}}) == replace(default, seed=3)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_ends_before_a_stop_text(beams: int) -> None:
    one = writer("llama", None, batch_size=3)
    one.decoding = Decoding(num_beams=beams, max_new_tokens=20, temperature=0.0)
    whole = one.write(SOURCES[:4])
    stop = whole[0][3:5]
    one.decoding = replace(one.decoding, stop=[stop])
    assert one.write(SOURCES[:4]) == [text.split(stop)[0].strip() for text in whole]
    said: list[str] = []
    assert one.stream(SOURCES[0], said.append) == "".join(said) == whole[0].split(stop)[0].strip()
