"""Answers are kept one by one, in the benchmarks' formats."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.evaluation.benchmark_answers import ANSWER, OUTPUT, claim, model_answers, model_outputs
from red_lightning.jsonl import Records

INSTRUCTIONS = [{"instruction": f"do {n}", "output": "reference", "dataset": "d"} for n in range(7)]
QUESTIONS = [
    {"question_id": n, "category": category, "turns": [f"first {n}", f"second {n}"]}
    for n, category in enumerate(["writing", "math", "writing", "writing", "math"], start=81)
]


class Model:
    """Answers with the number of messages and the last of them; stops working after so many answers."""

    def __init__(self, works: int = 1000, limit: int = 1000, silent: str = "none") -> None:
        self.works, self.silent, self.batch_size = works, silent, 2
        self.prompts = SimpleNamespace(limit=limit, whole=lambda all_of, where: [self.tokens(one) for one in all_of])
        self.asked: list[Any] = []

    @staticmethod
    def tokens(conversation: Any) -> list[int]:
        return [0] * sum(len(message["content"]) for message in conversation)

    def answer(self, conversations: Any) -> list[str]:
        self.works -= len(conversations)
        if self.works < 0:
            raise KeyboardInterrupt
        self.asked += [[dict(message) for message in one] for one in conversations]
        return [
            "" if self.silent in one[-1]["content"] else f"{len(one)}: {one[-1]['content']}" for one in conversations
        ]


def outputs(model: Any, path: Path) -> list[dict[str, Any]]:
    with Records(path, OUTPUT) as records:
        return model_outputs(lambda: model, INSTRUCTIONS, records, "mine", lambda line: None)


def answers(model: Any, path: Path) -> dict[Any, dict[str, Any]]:
    with Records(path, ANSWER) as records:
        return model_answers(lambda category: model, QUESTIONS, records, "mine", lambda line: None)


def test_alpaca_eval_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = outputs(Model(), tmp_path / "whole")
    assert whole == [
        {"dataset": "d", "instruction": f"do {n}", "output": f"1: do {n}", "generator": "mine"} for n in range(7)
    ]
    with pytest.raises(KeyboardInterrupt):
        outputs(Model(works=5), tmp_path / "parts")
    with (tmp_path / "parts").open("rb+") as file:
        file.truncate(file.seek(0, 2) - 9)  # a kill in the middle of the fourth line
    second = Model()
    assert outputs(second, tmp_path / "parts") == whole
    assert [one[0]["content"] for one in second.asked] == ["do 3", "do 4", "do 5", "do 6"]
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert outputs(None, tmp_path / "parts") == whole  # no model is loaded


def test_mt_bench_asks_the_second_turn_after_the_first(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        answers(Model(works=5), tmp_path / "parts")
    second = Model()
    found = answers(second, tmp_path / "parts")
    assert [*found] == [81, 82, 83, 84, 85]
    for number, row in found.items():
        assert row["choices"] == [{"index": 0, "turns": [f"1: first {number}", f"3: second {number}"]}]
        assert row["model_id"] == "mine"
        assert {"question_id", "answer_id", "model_id", "choices", "tstamp"} == {*row}
    assert len({row["answer_id"] for row in found.values()}) == 5
    assert {one[0]["content"] for one in second.asked} == {"first 82", "first 84", "first 85"}
    long = next(one for one in second.asked if len(one) == 3)
    assert [message["role"] for message in long] == ["user", "assistant", "user"]
    assert answers(None, tmp_path / "parts") == found


def test_the_model_is_that_of_the_category(tmp_path: Path) -> None:
    models = {"writing": Model(), "math": Model()}
    with Records(tmp_path / "a", ANSWER) as records:
        model_answers(models.__getitem__, QUESTIONS, records, "mine", lambda line: None)
    assert {one[0]["content"] for one in models["math"].asked} == {"first 82", "first 85"}


def test_too_long_prompts_are_flagged(tmp_path: Path) -> None:
    found = outputs(Model(limit=3), tmp_path / "a")
    assert all(row["output"] == "" and row["flag"] == "the prompt has 4 tokens, more than 3" for row in found)
    rows = answers(Model(limit=9), tmp_path / "b")
    for row in rows.values():
        assert row["choices"][0]["turns"][0]
        assert row["choices"][0]["turns"][1] == ""
        assert [*row["flags"]] == ["2"]


def test_a_turn_without_an_answer(tmp_path: Path) -> None:
    rows = answers(Model(silent="first 83"), tmp_path / "a")
    assert rows[83]["choices"][0]["turns"] == ["", ""]
    assert rows[83]["flags"] == {"2": "the turn before has no answer"}
    assert "flags" not in rows[81]


def test_a_folder_is_for_one_model(tmp_path: Path) -> None:
    settings = {"model": "a", "decoding": {"num_beams": 1}, "tuple": (1, 2)}
    claim(tmp_path / "new", settings)
    (tmp_path / "new/answers.jsonl").touch()
    claim(tmp_path / "new", settings)
    with pytest.raises(UsageError, match=r'begun with another model \("a", now "b"\); give another --output'):
        claim(tmp_path / "new", {**settings, "model": "b"})
    with pytest.raises(UsageError, match="with another extra"):
        claim(tmp_path / "new", {**settings, "extra": 1})
    with pytest.raises(UsageError, match="with another edits"):  # which says the most
        claim(tmp_path / "new", {"model": "b", "name": "c", "template": "d", "edits": "e"})
    (tmp_path / "other").mkdir()
    claim(tmp_path / "other", settings)  # empty
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something already"):
        claim(tmp_path / "full", settings)
    with pytest.raises(UsageError, match="holds something already"):
        claim(tmp_path / "full/thesis.tex", settings)
    (tmp_path / "new/settings.json").write_text("[")
    with pytest.raises(UsageError, match="is damaged"):
        claim(tmp_path / "new", settings)
