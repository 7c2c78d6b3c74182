"""Prompts that are read, and rows that are whole or go on where they were interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.generation.prompt_files import OutputFile, Question, read_prompts

COLUMNS = ["source", "prompt"]


def test_conversations_are_read_in_their_layouts(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    lines = [{"messages": turns}, {"messages": turns[:1]}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    read = read_prompts(str(file), True, COLUMNS)
    assert [question.prompt for question in read] == [turns[:3], "user"]
    assert [question.text for question in read] == ["user", "user"]
    assert read[1].where == f"line 2 of '{file}'"


def test_texts_are_read_from_the_first_column_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,source\nno,yes\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"prompt": "one"}\n{"prompt": 2}\n', encoding="utf-8")
    (tmp_path / "c.txt").write_text("first\n\nsecond\r\n", encoding="utf-8")
    texts = {
        name: [q.prompt for q in read_prompts(str(tmp_path / name), False, COLUMNS)] for name in ("a.csv", "c.txt")
    }
    assert texts == {"a.csv": ["yes"], "c.txt": ["first", "second"]}
    assert [q.prompt for q in read_prompts(str(tmp_path / "b.jsonl"), False, COLUMNS)] == ["one", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": ""}', "has an empty 'prompt'"),
        ('{"promt": "a"}', "has no column 'source'"),
        ("", "has no rows"),
        ("{", "is not valid JSON"),
    ],
)
def test_rows_that_are_no_prompts_are_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_prompts(str(tmp_path / "a.jsonl"), False, COLUMNS)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_appears_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    output = OutputFile(path, ["settings"])
    output.add([{"row": 1, "output": "später"}])
    output.add([{"row": 0, "output": "a\nb"}])
    assert not path.exists()
    output.finish()
    assert rows(path) == [{"row": 0, "output": "a\nb"}, {"row": 1, "output": "später"}]
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_was_interrupted_goes_on_even_behind_a_torn_line(tmp_path: Path) -> None:
    path, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    with OutputFile(path, {"decoding": 1}) as output:
        output.add([{"row": 3, "output": "x"}, {"row": 0, "output": "y"}])
    part.write_bytes(part.read_bytes()[:-3])  # killed while it wrote
    again = OutputFile(path, {"decoding": 1})
    assert again.rows == {3: {"row": 3, "output": "x"}}
    again.add([{"row": 0, "output": "z"}])
    again.finish()
    assert [row["output"] for row in rows(path)] == ["z", "x"]


def test_what_is_something_else_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="exists already; give another --output, or --overwrite true"):
        OutputFile(path, 1)
    OutputFile(path, 1, overwrite=True).finish()
    assert path.read_text() == ""
    path.unlink()
    with OutputFile(path, 1) as output:
        output.add([{"row": 0}])
    with pytest.raises(UsageError, match="begun with another model"):
        OutputFile(path, 2)
    with OutputFile(path, 2, overwrite=True) as output:
        assert output.rows == {}
    part.write_bytes(part.read_bytes() + b"[]\n")
    with pytest.raises(UsageError, match="is damaged"):
        OutputFile(path, 2)
    with pytest.raises(UsageError, match="does not exist"):
        OutputFile(tmp_path / "no/out.jsonl", 1)
    with pytest.raises(UsageError, match="is a folder"):
        OutputFile(tmp_path, 1)


def test_a_question_shows_what_is_asked_last() -> None:
    assert Question([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "").text == "u"


def test_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with OutputFile(path, 1) as output:
        output.add([{"row": 0}])
        with pytest.raises(UsageError, match="another process adds to"):
            OutputFile(path, 1, overwrite=True)
        assert len(rows(tmp_path / "out.jsonl.part")) == 2  # the other has changed nothing
    with OutputFile(path, 1) as again:
        assert again.rows == {0: {"row": 0}}
