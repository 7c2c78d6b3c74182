"""Rows of instructions: every value reaches the conversation, or is refused or reported by name."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from red_lightning.data import Instructions
from red_lightning.data.instructions import conversations
from red_lightning.data.layouts import COLUMNS, METADATA, RowReader
from red_lightning.data.messages import asked, first_prompt, texts_of
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError
from red_lightning.generation.prompt_files import read_prompts
from tests.backbones_zoo import build_tokenizer
from tests.data.test_chat_templates import CHATML, QWEN_2_5, tokenizer_with

TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {}}}]
CALL = [{"type": "function", "function": {"name": "w", "arguments": {"x": 1}}}]


def said(row: dict[str, Any], **options: Any) -> list[tuple[str, Any]]:
    """Who says what in a row."""
    read = RowReader(RowReport(), options.get("columns"), options.get("ignore"), options.get("may_ask", False))
    return [(m["role"], m["content"]) for m in read.read(row, "line 1")["messages"]]


def user(text: str) -> tuple[str, str]:
    return "user", text


def assistant(text: str) -> tuple[str, str]:
    return "assistant", text


PAIR = [user("Hi"), assistant("Hello")]
MESSAGES: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in PAIR]
SHARE_GPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PARTS = {"role": "assistant", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}
ROWS: list[tuple[dict[str, Any], list[tuple[str, Any]]]] = [
    (
        {"instruction": "And doubled?", "input": "", "output": "8", "system": "Arr.", "history": [["2+2?", "4"]]},
        [("system", "Arr."), user("2+2?"), assistant("4"), user("And doubled?"), assistant("8")],
    ),
    ({"system": "Be brief.", "prompt": "Hi", "response": "Hello"}, [("system", "Be brief."), *PAIR]),
    ({"system_prompt": "", "question": "Hi", "response": "Hello", "id": "flan.1"}, PAIR),
    ({"system_prompt": "S", "question": "Hi", "response": "Hello"}, [("system", "S"), *PAIR]),
    (
        {"instruction": "Name?", "context": "Rex.", "response": "Rex", "category": "qa"},
        [user("Name?\n\nRex."), assistant("Rex")],
    ),
    ({"prompt": "Hi", "completion": "Hello"}, PAIR),
    ({"question": "Hi", "answer": "Hello"}, PAIR),
    (
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
        PAIR,
    ),
    (
        {"conversations": [{"from": "gpt", "value": "Yes?"}, *SHARE_GPT]},
        [assistant("Yes?"), *PAIR],
    ),
    (
        {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "A"}, MESSAGES[0], PARTS]},
        [("system", ""), user("A"), *PAIR],
    ),
    ({"messages": MESSAGES, "prompt": "Hi "}, PAIR),
    (
        {"system": "S", "conversations": SHARE_GPT},
        [("system", "S"), *PAIR],
    ),
]


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_layouts(row: dict[str, Any], expected: list[tuple[str, Any]]) -> None:
    assert said(row) == expected


def test_every_value_of_a_row_is_used_refused_or_reported() -> None:
    """For each layout, each key that is added changes the conversation, is refused by name, or is counted."""
    draw = random.Random(0)
    keys = [*COLUMNS, *METADATA, "reward", "text", "chosen", "mask"]
    for row, expected in ROWS:
        for key in keys:
            if row.get(key):
                continue
            value = draw.choice(["zebra", ["zebra"], 7.5, {"zebra": 1}])
            report = RowReport()
            try:
                read = RowReader(report, None, None, False).read({**row, key: value}, "line 1")
            except UsageError as error:
                assert any(f"'{name}'" in str(error) for name in (key, *row)) or "message" in str(error)
                continue
            assert [(m["role"], m["content"]) for m in read["messages"]] != expected or report.unused[key] == 1


def test_every_key_of_a_message_is_used_refused_or_reported() -> None:
    plain = {"role": "assistant", "content": "Hello"}
    for key in ("name", "tool_calls", "reasoning_content", "weight", "train", "function_call", "id", "mood", "audio"):
        value: Any = CALL if key == "tool_calls" else {"name": "w", "arguments": "{}"} if key == "function_call" else 1
        value = 0 if key in ("weight", "train") else value
        report = RowReport()
        row = {"messages": [{"role": "user", "content": "Hi"}, plain, {"role": "user", "content": "Hm"}, plain]}
        row["messages"][1] = {**plain, key: value}
        try:
            read = RowReader(report, None, None, False).read(row, "line 1")
        except UsageError as error:
            assert f"message 2 of line 1 has the key '{key}'" in str(error)
            continue
        assert read["messages"][1] != plain or report.unused[key] == 1


def test_tools_of_share_gpt() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "w", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "sunny"},
            {"from": "gpt", "value": "Sunny."},
        ],
        "tools": json.dumps(TOOLS),
    }
    read = RowReader(RowReport(), None, None, False).read(row, "line 1")
    assert read["tools"] == TOOLS
    assert read["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]
    assert len(asked(read["messages"])) == 3 and first_prompt(read["messages"]) == ("Weather?",)
    assert texts_of(read["messages"]) == {"text": "sunny", "references": ["Sunny."]}


def test_calls_of_tools_become_objects() -> None:
    """One call or several, as JSON or not: templates would write JSON in a text with its quotes escaped."""
    written = {"name": "w", "arguments": '{"x": 1}'}
    for message in (
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": written}]},
        {"role": "assistant", "content": None, "function_call": written},
        {"from": "function_call", "value": json.dumps([written])},
    ):
        read = RowReader(RowReport(), None, None, False).read({"messages": [MESSAGES[0], message]}, "line 1")
        assert read["messages"][1] == {"role": "assistant", "content": "", "tool_calls": CALL}


def test_a_prompt_that_is_a_list_is_read_but_not_learned() -> None:
    """As TRL does it: of the columns prompt and completion the completion is learned."""
    row = {"prompt": [*MESSAGES, {"role": "user", "content": "And?"}], "completion": MESSAGES[1:]}
    read = RowReader(RowReport(), None, None, False).read(row, "line 1")["messages"]
    assert [m.get("weight", 1) for m in read if m["role"] == "assistant"] == [0, 1]


def test_layouts_may_change_from_row_to_row() -> None:
    nothing = {"prompt": None, "response": None, "messages": None, "system": None}
    assert said({**nothing, "prompt": "Hi", "response": "Hello"}) == PAIR
    assert said({**nothing, "messages": MESSAGES}) == PAIR
    assert said({"prompt": "Hi", "response": "Hello"}, columns={"system": "rules"}) == PAIR


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"messages": [MESSAGES[0], {**PARTS, "content": [{"type": "text", "text": "a", "mood": "x"}]}]},
            "message 2 of line 1 has a part with the key 'mood'",
        ),
        (
            {"messages": [MESSAGES[0], {**MESSAGES[1], "function_call": {"name": "w", "arguments": "", "to": "x"}}]},
            "message 2 of line 1 has a call of a tool with the key 'to'",
        ),
        (
            {"messages": [MESSAGES[0], {**MESSAGES[1], "function_call": CALL, "tool_calls": CALL}]},
            "message 2 of line 1 has calls of tools in both 'tool_calls' and 'function_call'",
        ),
        ({"prompt": "a", "instruction": "b", "response": "c"}, "has both 'prompt' and 'instruction'"),
        ({"prompt": "a", "response": "b", "output": "c"}, "has both 'response' and 'output'"),
        ({"prompt": "a", "response": "b", "text": "c", "mask": 1}, r"'text', which is not used. .* '\[text, mask\]'"),
        ({"prompt": "a", "response": "b", "tools": "nonsense"}, "'tools' is not valid JSON"),
        ({"prompt": "a", "response": "b", "tools": {"a": 1}}, "'tools' is no list of objects"),
        ({"prompt": "a", "response": "b", "history": ["x"]}, "'history' is no list of pairs"),
        ({"messages": [], "conversations": []}, "has no list of messages"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "w("}]},
            "message 2 of line 1 is a call of a tool, but not valid JSON",
        ),
        (
            {"system": "a", "messages": [{"role": "system", "content": "b"}]},
            "a system message and a column with another",
        ),
    ],
)
def test_contradictions_are_refused(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        said(row)


def test_other_names_of_columns() -> None:
    row = {"q": "Hi", "a": "Hello", "note": "x"}
    assert said(row, columns={"prompt": "q", "response": "a"}, ignore=["note"]) == PAIR
    assert said({"chosen": MESSAGES, "x": 1}, columns={"messages": "chosen"}, ignore=["x"]) == PAIR
    assert said({"q": "Hi"}, columns={"prompt": "q", "response": "a"}, may_ask=True) == PAIR[:1]
    with pytest.raises(UsageError, match=r"data\.columns has the key 'promt', .* did you mean 'prompt'"):
        said(row, columns={"promt": "q"})
    with pytest.raises(UsageError, match="line 1 has no column 'b'"):
        said(row, columns={"prompt": "q", "response": "b"})
    with pytest.raises(UsageError, match="has the column 'prompt' beside 'q'"):
        said({**row, "prompt": "x"}, columns={"prompt": "q", "response": "a"}, ignore=["note"])


def write(path: Path, rows: list[Any]) -> str:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def test_bad_rows_stop_or_are_left_out_and_named(tmp_path: Path) -> None:
    good = [{"prompt": f"p{n}", "response": f"r{n}", "id": n} for n in range(9)]
    bad = ['{"prompt": ', "[1]", {"prompt": "a"}, {"prompt": "a", "response": "b", "score": 1}, ""]
    mixed = [row for pair in zip(good, [*bad, *good[5:]], strict=False) for row in pair]
    file = write(tmp_path / "a.jsonl", mixed)
    with pytest.raises(UsageError, match=r"line 2 of .* is not valid JSON"):
        conversations(file)
    data = Instructions(file, bad_rows="skip", validation_size=2)
    data.connect(build_tokenizer(), False)
    data.setup("fit")
    assert sum(data.counts.values()) == len(mixed) - len(bad)
    notes = "\n".join(data.notes)
    assert f"4 of {len(mixed) - 1} rows of '{file}' are bad and left out: line 2 of" in notes
    assert f"blank lines of '{file}' left out: 1" in notes
    assert f"columns that are not used: id ({len(mixed) - len(bad)} rows)" in notes
    assert data.provenance()["bad_rows"] == {file: 4}
    only_bad = write(tmp_path / "b.jsonl", bad[:3])
    with pytest.raises(UsageError, match=r"all 3 rows of .* are bad; the first: line 1"):
        conversations(only_bad, report=RowReport("skip"))


def test_weights_decide_what_is_learned(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "5", "weight": 0},
            {"role": "user", "content": "Wrong."},
            {"role": "assistant", "content": "4", "train": True},
        ]
    }
    data = Instructions(write(tmp_path / "a.jsonl", [row]), validation_file=write(tmp_path / "b.jsonl", [row]))
    tokenizer = build_tokenizer()
    data.connect(tokenizer, False)
    data.setup("fit")
    (encoded,) = data._encoded["train"]
    learned = ["".join(tokenizer.decode(encoded["tokens"][a:b])) for a, b in encoded["learned"]]
    assert learned == [" 4<eos>"]


def test_rows_that_the_template_refuses_are_bad_rows(tmp_path: Path) -> None:
    twice = [MESSAGES[0], MESSAGES[0], MESSAGES[1]]
    rows = [{"messages": [{**m, "content": f"{m['content']} {n}"} for m in MESSAGES]} for n in range(6)]
    file = write(tmp_path / "a.jsonl", [*rows[:3], {"messages": twice}, *rows[3:]])
    alternating = "{% if loop.previtem and loop.previtem.role == m.role %}{{ raise_exception('no') }}{% endif %}"
    tokenizer = tokenizer_with(CHATML.replace("<|im_start|>{{ m.role", f"{alternating}<|im_start|>{{{{ m.role"))
    data = Instructions(file, validation_file=file, template="chat")
    data.connect(tokenizer, False)
    with pytest.raises(UsageError, match="refuses line 4"):
        data.setup("fit")
    data = Instructions(file, validation_file=file, template="chat", bad_rows="skip")
    data.connect(tokenizer, False)
    data.setup("fit")
    assert data.counts == {"train": 6, "validation": 6}
    assert any(f"1 of 7 rows of '{file}' are bad and left out: the tokenizer's" in note for note in data.notes)
    only = write(tmp_path / "b.jsonl", [{"messages": twice}])
    data = Instructions(only, validation_file=file, template="chat", bad_rows="skip")
    data.connect(tokenizer, False)
    with pytest.raises(UsageError, match="all 1 rows of"):
        data.setup("fit")


def test_a_loss_on_all_tokens_leaves_answers_of_the_weight_0_out(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "Hello", "weight": 0}
    row = {"messages": [MESSAGES[0], answer, *MESSAGES]}
    data = Instructions(validation_file=write(tmp_path / "a.jsonl", [row]), loss_on="all")
    tokenizer = build_tokenizer()
    data.connect(tokenizer, False)
    data.setup("validate")
    (encoded,) = data._encoded["validation"]
    spans = [tokenizer.decode(encoded["tokens"][a:b]) for a, b in encoded["learned"]]
    assert "".join(spans).count("Hello") == 1 and len(spans) == 2
    muted = {**MESSAGES[0], "weight": 0}
    data = Instructions(
        validation_file=write(tmp_path / "b.jsonl", [{"messages": [muted, MESSAGES[1]]}]), loss_on="all"
    )
    data.connect(tokenizer, False)
    with pytest.raises(UsageError, match=r"line 1 .* has a message with the weight 0 that is no answer"):
        data.setup("validate")


def test_names_and_known_answers_of_prompts_are_not_lost(tmp_path: Path) -> None:
    named = {"role": "user", "content": "Hi", "name": "Ann"}
    report = RowReport()
    file = write(tmp_path / "a.jsonl", [{"messages": [named, MESSAGES[1]]}, {"prompt": "Hi"}])
    read = read_prompts(file, True, ["prompt"], {"columns": {"source": "x"}}, report)
    assert [question.prompt for question in read] == [[named], "Hi"]
    assert report.notes == ["columns that are not used: known answers (1 rows)"]


def test_prompts_of_files_are_read_as_rows_are(tmp_path: Path) -> None:
    dolly = {"instruction": "Name?", "context": "Rex.", "category": "qa"}
    tools = {"messages": [{"role": "user", "content": "Weather?"}], "tools": TOOLS}
    report = RowReport()
    file = write(tmp_path / "a.jsonl", [dolly, tools, {"q": "Hi"}])
    read = read_prompts(file, True, ["prompt"], {"columns": {"question": "q"}}, report)
    assert [question.prompt for question in read[::2]] == ["Name?\n\nRex.", "Hi"]
    assert read[1].prompt == {"messages": tools["messages"], "tools": TOOLS} and read[1].text == "Weather?"
    assert report.notes == ["columns that are not used: category (1 rows)"]


def test_tools_reach_the_chat_template(tmp_path: Path) -> None:
    row = {"messages": MESSAGES, "tools": TOOLS}
    file = write(tmp_path / "a.jsonl", [row] * 4)
    data = Instructions(file, template="chat", validation_size=1)
    tokenizer = tokenizer_with(QWEN_2_5)
    with pytest.raises(UsageError, match="too few different prompts"):
        data.connect(tokenizer, False)
        data.setup("fit")
    data = Instructions(file, validation_file=file, template="chat")
    data.connect(tokenizer, False)
    data.setup("fit")
    expected = tokenizer.apply_chat_template(MESSAGES, tools=TOOLS, tokenize=True, return_dict=False)
    assert list(data._encoded["train"][0]["tokens"]) == expected
    paper = Instructions(file, validation_file=file)
    paper.connect(tokenizer, False)
    with pytest.raises(UsageError, match="the template paper has no place for tools of line 1"):
        paper.setup("fit")
