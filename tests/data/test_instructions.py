"""The user's own conversations: layouts, which file stands for which split, and refusals that name the row."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from red_lightning.data import Instructions
from red_lightning.data.instructions import conversations
from red_lightning.errors import UsageError

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
]
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
SHARE_GPT = [{"from": NAMES[message["role"]], "value": message["content"]} for message in CHAT]


def write(path: Path, rows: list[Any]) -> str:
    """Rows in the format that the ending says."""
    if path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {number}?", "response": f"It is {number}."} for number in range(count)]


def refused(file: str, may_ask: bool = False) -> str:
    with pytest.raises(UsageError) as caught:
        conversations(file, may_ask)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("layout", ["messages", "conversations"])
def test_lists_of_messages(ending: str, layout: str, tmp_path: Path) -> None:
    row = {"id": 1, layout: CHAT if layout == "messages" else SHARE_GPT}
    read = conversations(write(tmp_path / f"a.{ending}", [row, row]))
    assert [row["messages"] for row in read] == [CHAT, CHAT]
    assert [row["row"] for row in read] == [0, 1]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv"])
def test_prompt_and_response(ending: str, tmp_path: Path) -> None:
    read = conversations(write(tmp_path / f"a.{ending}", pairs(2)))
    assert [message["content"] for message in read[1]["messages"]] == ["What is 1?", "It is 1."]
    assert [message["role"] for message in read[1]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv"])
def test_alpaca(ending: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
    ]
    read = conversations(write(tmp_path / f"a.{ending}", rows))
    assert [row["messages"][0]["content"] for row in read] == ["Add.\n\n1 2", "Say hi."]
    assert [row["messages"][1]["content"] for row in read] == ["3", "hi"]


def test_alpaca_without_input_and_with_null(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "c", "input": None, "output": 4}]
    read = conversations(write(tmp_path / "a.jsonl", rows))
    assert [[message["content"] for message in row["messages"]] for row in read] == [["a", "b"], ["c", "4"]]


def test_rows_are_numbered_by_the_line_they_are_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"prompt": "a", "response": "b"}\n\n{"prompt": "c", "response": "d"}\n', encoding="utf-8")
    assert [row["where"] for row in conversations(str(path))] == [f"line 2 of '{path}'", f"line 4 of '{path}'"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": []}, "has no list of messages"),
        ({"messages": "Human: hi"}, "has no list of messages"),
        ({"messages": None}, "has no list of messages"),
        ({"messages": ["hi"]}, "message 1 of line 2 of 'FILE' is not an object with 'role' and 'content'"),
        ({"messages": [{"role": "user", "text": "hi"}]}, "message 1 of line 2 of 'FILE' is not an object"),
        ({"messages": [{"from": "human", "text": "hi"}]}, "message 1 of line 2 of 'FILE' is not an object"),
        ({"messages": CHAT[:2]}, "line 2 of 'FILE' has no answer"),
        ({"messages": CHAT[:1]}, "line 2 of 'FILE' has no answer"),
        ({"messages": CHAT[:4]}, "line 2 of 'FILE' ends with a user message"),
        ({"messages": CHAT[2:3]}, "line 2 of 'FILE' has no user message"),
        ({"messages": [*CHAT[1:3], CHAT[0], *CHAT[3:]]}, "message 3 of line 2 of 'FILE' is by the system"),
        ({"messages": [CHAT[0], CHAT[0], *CHAT[1:]]}, "message 2 of line 2 of 'FILE' is by the system"),
        ({"messages": [*CHAT[:2], {"role": "critic", "content": "x"}]}, "3 of line 2 of 'FILE' has the unknown role"),
        ({"messages": [*CHAT[:2], {"role": "tool", "content": "x"}]}, "is the result of a tool, but no call of a tool"),
        ({"messages": [{"role": "User", "content": "x"}]}, "unknown role 'User'; did you mean 'user'?"),
        ({"messages": [CHAT[1], {"role": "assistant", "content": " \n"}]}, "2 of line 2 of 'FILE' is an empty answer"),
        ({"messages": [{"role": "user", "content": ""}, CHAT[2]]}, "1 of line 2 of 'FILE' is an empty prompt"),
        ({"messages": [{"role": "user", "content": None}, CHAT[2]]}, "1 of line 2 of 'FILE' is an empty prompt"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, CHAT[2]]}, "has a part of the type 'image'"),
        ({"messages": [CHAT[1], {**CHAT[2], "weight": 0}]}, "line 2 of 'FILE' has no answer to learn"),
        ({"messages": [CHAT[1], {**CHAT[2], "weight": 0.5}]}, "has the weight 0.5, but it must be 0 or 1"),
        ({"messages": [{**CHAT[1], "train": True}, CHAT[2]]}, "is by the user and should be learned"),
        ({"messages": [CHAT[1], {**CHAT[2], "rating": 4}]}, "has the key 'rating', which is not used"),
        ({"message": CHAT}, "has the columns message, which are no layout that is known"),
    ],
)  # fmt: skip
def test_bad_messages_name_their_row(row: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"messages": CHAT}, row])
    assert complaint.replace("FILE", file) in refused(file)


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        (pairs(1)[0], {"prompt": "a", "response": " "}, "line 2 of 'FILE' has no answer"),
        (pairs(1)[0], {"prompt": "", "response": "b"}, "message 1 of line 2 of 'FILE' is an empty prompt"),
        (pairs(1)[0], {"prompt": "a"}, "line 2 of 'FILE' has no answer: fill in one of response"),
        (pairs(1)[0], {"prompt": {"a": 1}, "response": "b"}, "line 2 of 'FILE': 'prompt' is no text"),
        (pairs(1)[0], {"prompt": "\ud83d", "response": "b"}, "'prompt' is no text that UTF-8 can hold"),
        ({"instruction": "a", "output": "b"}, {"instruction": "a", "output": None}, "line 2 of 'FILE' has no answer"),
        (
            {"instruction": "a", "output": "b"},
            {"output": "b"},
            "line 2 of 'FILE' has the columns output, which are no layout that is known",
        ),
        ({"conversations": SHARE_GPT}, {"conversations": SHARE_GPT[:2]}, "line 2 of 'FILE' has no answer"),
    ],
)
def test_bad_rows_of_other_layouts(good: Any, bad: Any, complaint: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [good, bad])
    assert complaint.replace("FILE", file) in refused(file)


def test_unknown_layouts_name_the_known_ones(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.jsonl", [{"query": "a", "reply": "b"}]))
    assert "line 1 of" in message and "has the columns query, reply" in message
    assert "messages, conversations, or one of prompt, instruction, question and one of response, completion" in message
    assert "--data.columns '{prompt: NAME, response: NAME}'" in message
    assert "has no answer" in refused(write(tmp_path / "b.jsonl", [{"prompt": "a"}]))


@pytest.mark.parametrize(
    ("ending", "content", "complaint"),
    [
        ("jsonl", '{"messages": [', "line 1 of 'FILE' is not valid JSON"),
        ("jsonl", "[1]", "line 1 of 'FILE' is not a JSON object"),
        (
            "json",
            '[\n{"prompt": "a",\n]',
            "'FILE' is not valid JSON: Illegal trailing comma before end of object (line 2)",
        ),
        ("json", '{"prompt": "a", "response": "b"}', "'FILE' does not hold a list of JSON objects"),
        ("json", "[3]", "row 1 of 'FILE' is not a JSON object"),
        ("json", "[" * 100_000, "is not usable JSON: it is nested too deeply"),
        ("json", "[]", "has no rows"),
        ("jsonl", "\n", "has no rows"),
        ("txt", "a prompt\n", "has no answer: fill in one of response"),
        ("xlsx", "a", "unknown ending"),
    ],
)
def test_broken_files(ending: str, content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_text(content, encoding="utf-8")
    message = refused(str(path))
    if "trailing comma" in complaint:  # its words differ between versions of Python
        assert f"'{path}' is not valid JSON" in message and "(line " in message
    else:
        assert complaint.replace("FILE", str(path)) in message
    assert "does not exist" in refused(str(tmp_path / "none.jsonl"))


def test_prompts_to_answer_need_no_answers(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", "response": "c"}, {"prompt": "d", "response": ""}]
    read = conversations(write(tmp_path / "a.jsonl", rows), may_ask=True)
    assert [len(row["messages"]) for row in read] == [1, 2, 1]
    assert len(conversations(write(tmp_path / "b.jsonl", [{"messages": CHAT[:4]}]), may_ask=True)[0]["messages"]) == 4
    assert conversations(write(tmp_path / "c.jsonl", [{"instruction": "x"}]), may_ask=True)
    (tmp_path / "d.txt").write_text("first\n\nsecond\n", encoding="utf-8")
    read = conversations(str(tmp_path / "d.txt"), may_ask=True)
    assert [row["messages"] for row in read] == [[{"role": "user", "content": text}] for text in ("first", "second")]
    assert "no user message" in refused(write(tmp_path / "e.jsonl", [{"messages": CHAT[:1]}]), may_ask=True)


def test_held_out_rows_depend_on_the_seed_only(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs(40))
    modules = [
        Instructions(file, seed=seed, max_length=size, validation_size=0.25) for seed, size in ((1, 9), (1, 8), (2, 9))
    ]
    held = [data.read("validation") for data in modules]
    assert held[0] == held[1] != held[2]
    train = modules[0].read("train")
    assert (len(train), len(held[0])) == (30, 10)
    assert sorted(row["row"] for row in [*train, *held[0]]) == list(range(40))
    assert [row["row"] for row in train] == sorted(row["row"] for row in train)
    assert modules[0].held_out_by == {"seed": 1, "validation_size": 0.25, "rows": 40} != modules[2].held_out_by
    assert len(Instructions(file, validation_size=7).read("validation")) == 7


def test_rows_with_the_same_prompt_stay_together(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{**row, "response": f"{n}"} for n in range(3) for row in pairs(10)])
    data = Instructions(file, validation_size=6)
    prompts = {split: {row["messages"][0]["content"] for row in data.read(split)} for split in ("train", "validation")}
    assert len(data.read("validation")) == 6 and len(prompts["validation"]) == 2
    assert not prompts["train"] & prompts["validation"]


def test_splits_that_stand_in_for_others(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{count}.jsonl", pairs(count)) for count in (10, 4, 5, 6)]
    given = Instructions(*files)
    assert [len(given.read(split)) for split in ("train", "validation", "test", "predict")] == [10, 4, 5, 6]
    assert given.held_out_by == {}
    alone = Instructions(files[0], validation_size=2)
    assert alone.read("predict") == alone.read("test") == alone.read("validation")
    assert len(Instructions(validation_file=files[1]).read("test")) == 4
    for split in ("train", "validation"):
        with pytest.raises(UsageError, match=rf"no {split} rows: give --data\.{split}_file"):
            Instructions().read(split)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 1.5, -0.1])
def test_an_impossible_size_is_refused(size: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="validation_size"):
        Instructions("a.jsonl", validation_size=size)


@pytest.mark.parametrize("size", [3, 4, 1.0])
def test_no_rows_left_to_train_on(size: float, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs(3))
    with pytest.raises(UsageError, match=r"too few different prompts \(3\) to train on .* data\.validation_size"):
        Instructions(file, validation_size=size).read("train")
