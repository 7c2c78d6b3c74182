"""The end of a run as files and as a table."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from red_lightning.runs.display import libraries, print_samples, print_scores, read_json, read_jsonl, write_json


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=80)


def shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_json_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_json(file, {"score": 0.1, "text": "café"})
    assert read_json(file) == {"score": 0.1, "text": "café"}
    assert "café" in file.read_text(encoding="utf-8")
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_json(file, {"score": object()})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_jsonl(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "none.jsonl") == []
    rows = [{"text": "one\u2028line"}, {"text": "two"}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_scores_side_by_side(console: Console) -> None:
    columns = {"unedited": {"BLEU": 0.0}, "edited": {"BLEU": 0.68204, "NIST": 8.5}}
    print_scores(columns, {"METEOR": 'METEOR needs Java: pip install "red-lightning[meteor]"'}, console=console)
    lines = shown(console).splitlines()
    assert lines[0].startswith("Scores on the test split")
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [["BLEU", "0.0000", "0.6820"], ["NIST", "-", "8.5000"], ["METEOR", "missing", "missing"]]
    assert lines[-1] == 'METEOR needs Java: pip install "red-lightning[meteor]"'


def test_samples(console: Console) -> None:
    before = [
        {"row": i, "source": f"name[{i}], x[/y]", "prediction": f"before {i}", "references": []} for i in range(9)
    ]
    after = [{**row, "prediction": f"after {i}", "references": [f"it is {i}"]} for i, row in enumerate(before)]
    print_samples(before, after, 3, "RED", console)
    text = shown(console)
    for i in (0, 3, 6):  # spread over the split
        for part in (f"name[{i}], x[/y]", f"before {i}", f"after {i}", f"it is {i}"):
            assert part in text
    assert "after 1" not in text


@pytest.mark.parametrize(("rows", "count", "tables"), [(2, 5, 2), (5, 0, 0), (0, 3, 0)])
def test_number_of_samples(rows: int, count: int, tables: int, console: Console) -> None:
    after = [{"row": i, "source": "a", "prediction": "b", "references": []} for i in range(rows)]
    print_samples([], after, count, "RED", console)
    assert shown(console).count("RED") == tables
    assert "unedited" not in shown(console)
    assert "reference" not in shown(console)


def test_versions() -> None:
    assert all(version[0].isdigit() for version in libraries().values())
