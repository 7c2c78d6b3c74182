"""A conversation: what the model reads at each turn, and what is kept of it."""

from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.generation import Writer
from red_lightning.generation.conversation import Conversation
from tests.generation.test_writer import writer


class Answers:
    """Stands in for a writer's stream: gives set answers, and keeps what the model would have read."""

    def __init__(self, one: Writer, *answers: Any) -> None:
        self.answers, self.read = list(answers), []
        self.decode, self.encode = one.edited.tokenizer.decode, one.encode
        one.stream = self  # type: ignore[method-assign, assignment]

    def __call__(self, prompt: Any, say: Any, where: str) -> str:
        self.read.append(self.decode(self.encode([prompt], [where])[0]))
        for piece in self.answers.pop(0):
            if piece is KeyboardInterrupt:
                raise KeyboardInterrupt
            say(piece)
        return ""


def quiet(_: str) -> None:
    pass


def test_each_turn_reads_those_before_it() -> None:
    one = writer("llama", "InstructionTuning")
    said, answers = Conversation(one, "Be brief."), Answers(one, ["One", "."], ["Two."])
    said.ask("A?", quiet)
    said.ask("B?", quiet)
    assert answers.read == [
        "Be brief.\n\nHuman: A?\n\nAssistant:",
        "Be brief.\n\nHuman: A?\n\nAssistant: One.<eos>\n\nHuman: B?\n\nAssistant:",
    ]
    assert [message["content"] for message in said.messages] == ["Be brief.", "A?", "One.", "B?", "Two."]


def test_undo_and_reset_forget() -> None:
    one = writer("llama", "InstructionTuning")
    said, answers = Conversation(one), Answers(one, ["One."], ["Two."], ["Three."], ["Four."])
    for message in ("A?", "B?"):
        said.ask(message, quiet)
    assert said.undo()
    said.ask("C?", quiet)
    assert answers.read[-1] == "Human: A?\n\nAssistant: One.<eos>\n\nHuman: C?\n\nAssistant:"
    said.reset()
    assert not said.undo() and said.messages == []
    said.ask("D?", quiet)
    assert answers.read[-1] == "Human: D?\n\nAssistant:"


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came() -> None:
    one = writer("llama", "InstructionTuning")
    said = Conversation(one)
    Answers(one, ["So", " far", KeyboardInterrupt], [KeyboardInterrupt], [""])
    reply = said.ask("A?", quiet)
    assert (reply.text, reply.stopped) == ("So far", True)
    assert said.ask("B?", quiet).stopped
    assert said.ask("C?", quiet).text == ""
    assert [message["content"] for message in said.messages] == ["A?", "So far"]  # no turn without an answer
    assert [said.undo() for _ in range(4)] == [True, True, True, False]  # but an exchange


def test_the_oldest_exchanges_are_forgotten_where_the_context_is_full() -> None:
    one = writer("llama", "InstructionTuning")  # 256 positions, 8 new tokens
    said, answers = Conversation(one, "System."), Answers(one, *([f"{'word ' * 20}{n}."] for n in range(9)))
    forgotten = [said.ask(f"Question {number}?", quiet).forgotten for number in range(6)]
    assert forgotten[0] == 0 and sum(forgotten) > 0
    assert all(text.startswith("System.\n\nHuman: Question ") for text in answers.read)
    assert all(len(row) + 8 <= 256 for row in one.encode(answers.read))
    kept = 6 - sum(forgotten)
    assert [m["content"] for m in said.messages if m["role"] == "user"] == [
        f"Question {n}?" for n in range(6 - kept, 6)
    ]
    before = said.messages
    with pytest.raises(UsageError, match=r"your message has \d+ tokens, but the backbone has 256 positions"):
        said.ask("word " * 200, quiet)
    assert said.messages == before


def test_a_model_that_does_not_converse_reads_each_message_alone() -> None:
    one = writer("gpt2", "DataToText")
    said, answers = Conversation(one), Answers(one, ["a"], ["b"])
    said.ask("name[A]", quiet)
    said.ask("name[B]", quiet)
    assert answers.read == ["name[A]<eos>", "name[B]<eos>"]


def test_the_unedited_side_is_the_backbones() -> None:
    one = writer("llama", "InstructionTuning")
    question = [{"role": "user", "content": "Who serves Thai food?"}]
    with one.unedited():
        expected = one.answer([question])[0]
    sides = [Conversation(one, edited=edited).ask(question[0]["content"], quiet).text for edited in (True, False, True)]
    assert sides == [one.answer([question])[0], expected, sides[0]]
    assert sides[0] != sides[1]
