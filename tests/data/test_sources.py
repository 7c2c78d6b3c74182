"""Reading rows from files and from folders laid out like a hub repository; every bad file is named in one line."""

import csv
import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from red_lightning.data.sources import file_rows, hub_rows, require_text
from red_lightning.errors import UsageError

COLUMNS = ["source", "target"]
TEXTS = [
    ("plain", "text"),
    ('a "quoted" word', "it's, well, comma"),
    ("two\nlines", "a\r\nb"),
    ("a\ttab", "trailing "),
    ("ünïcödé 日本 🍕", "e\u0301 \u200b"),
    ("line\u2028separator", "next\x85line \x0b \x0c \x1c"),
]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(path: Path | str, columns: list[str] = COLUMNS) -> str:
    with pytest.raises(UsageError) as caught:
        file_rows(str(path), columns)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("ending", ["csv", "tsv", "CSV", "TSV"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tables_give_back_what_the_standard_library_wrote(
    ending: str, encoding: str, newline: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{ending}"
    with path.open("w", encoding=encoding, newline="") as file:
        delimiter = "\t" if ending.lower() == "tsv" else ","
        writer = csv.writer(file, delimiter=delimiter, lineterminator=newline)
        writer.writerow(["id", "target", "source"])
        writer.writerows((number, target, source) for number, (source, target) in enumerate(TEXTS))
    assert [(row["source"], row["target"]) for row in file_rows(str(path), COLUMNS)] == TEXTS


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_lines_give_back_what_the_standard_library_wrote(ascii_only: bool, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"target": t, "source": s, "id": 1}, ensure_ascii=ascii_only) for s, t in TEXTS]
    path.write_bytes("\r\n\r\n".join(lines).encode(encoding))
    assert [(row["source"], row["target"]) for row in file_rows(str(path), COLUMNS)] == TEXTS


def test_blank_lines_and_numbers(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "source,target\n\n1,2\n\n\n3,4.5\n")
    lines = write(tmp_path / "a.jsonl", '\n{"source": 1, "target": 2}\n  \n{"source": 3, "target": 4.5}')
    assert file_rows(table, COLUMNS) == file_rows(lines, COLUMNS)
    assert file_rows(table, ["target"]) == [{"target": "2"}, {"target": "4.5"}]


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.csv")
    assert "does not exist" in refused(tmp_path)
    message = refused(write(tmp_path / "rows.xlsx", "source,target\na,b\n"))
    assert "unknown ending" in message and ".csv, .tsv, .jsonl" in message


@pytest.mark.parametrize("content", ["", "\n\n", "source,target\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_table_without_rows(content: str | bytes, ending: str, tmp_path: Path) -> None:
    assert "has no rows" in refused(write(tmp_path / f"rows.{ending}", content))


def test_json_lines_without_rows(tmp_path: Path) -> None:
    assert "has no rows" in refused(write(tmp_path / "rows.jsonl", "\n \n"))


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "rows.csv", "sourse,target\na,b\n"))
    assert "no column 'source': did you mean 'sourse'? known: sourse, target" in message
    lines = '{"source": "a", "target": "b"}\n{"source": "a", "targets": "b"}\n'
    message = refused(write(tmp_path / "rows.jsonl", lines))
    assert "line 2" in message and "did you mean 'targets'?" in message


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    for ending in ("csv", "tsv", "jsonl"):
        message = refused(write(tmp_path / f"rows.{ending}", b"source,target\na,b\ncaf\xe9,b\n"))
        assert "line 3 of" in message and "not UTF-8" in message


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"source": "a", "target": ', "not valid JSON"),
        ("{'source': 'a'}", "not valid JSON"),
        ('["a", "b"]', "not a JSON object"),
        ("17", "not a JSON object"),
        ('{"source": ["a"], "target": "b"}', "'source' is no text"),
        ('{"source": "a", "target": {"b": 1}}', "'target' is no text"),
        ('{"source": true, "target": "b"}', "'source' is no text"),
        ('{"source": "\\ud83d", "target": "b"}', "'source' is no text"),
    ],
)
def test_malformed_json_names_its_line(line: str, complaint: str, tmp_path: Path) -> None:
    message = refused(write(tmp_path / "rows.jsonl", f'{{"source": "a", "target": "b"}}\n\n{line}\n'))
    assert "line 3 of" in message and complaint in message


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a", "2 fields"),
        ("a,b,c", "2 fields"),
        ('"a,b', "not valid CSV"),
        ('"a"b,c', "not valid CSV"),
    ],
)
def test_ragged_rows_name_their_line(row: str, complaint: str, tmp_path: Path) -> None:
    message = refused(write(tmp_path / "rows.csv", f"source,target\na,b\n{row}\n"))
    assert "line 3 of" in message and complaint in message


def test_empty_texts_name_their_row() -> None:
    rows = [{"source": "a", "target": "b"}, {"source": " \t", "target": "c"}]
    require_text(rows[:1], "the file")
    with pytest.raises(UsageError, match="row 2 of the file has an empty 'source'"):
        require_text(rows, "the file")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for datasets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def hub_folder(path: Path, text: str, rows: int = 3) -> Path:
    """A folder laid out like a hub repository with one split."""
    (path / "data").mkdir(parents=True, exist_ok=True)
    table = arrow.table({"source": [text] * rows, "target": [f"{text}{row}" for row in range(rows)]})
    parquet.write_table(table, path / "data/train-00000-of-00001.parquet")
    return path


def test_folders_of_one_name_keep_their_own_rows(own_cache: Path, tmp_path: Path) -> None:
    first, second = hub_folder(tmp_path / "a/pairs", "x"), hub_folder(tmp_path / "b/pairs", "y")
    for _ in range(2):
        for folder, text in ((first, "x"), (second, "y")):
            rows = hub_rows(str(folder), "train", COLUMNS)
            assert rows == [{"source": text, "target": f"{text}{row}"} for row in range(3)]


def test_a_changed_folder_gives_its_new_rows(own_cache: Path, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pairs", "x")
    assert hub_rows(str(folder), "train", ["source"])[0] == {"source": "x"}
    hub_folder(folder, "z", rows=4)
    assert hub_rows(str(folder), "train", ["source"]) == [{"source": "z"}] * 4


def test_bad_folders_are_named(own_cache: Path, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pairs", "x")
    damaged = hub_folder(tmp_path / "damaged", "x")
    file = next(damaged.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:50])
    (tmp_path / "empty").mkdir()
    (tmp_path / "malformed").mkdir()
    (tmp_path / "malformed/train.jsonl").write_text('{"source": "a"}\n{"source": \n')
    for path, split, column, complaint in (
        (folder, "test", "source", "split 'test'"),
        (folder, "train", "sourse", "did you mean 'source'?"),
        (damaged, "train", "source", "cannot be read"),
        (tmp_path / "empty", "train", "source", "cannot be read"),
        (tmp_path / "malformed", "train", "source", "cannot be read"),
        (tmp_path / "absent", "train", "source", "does not exist"),
    ):
        with pytest.raises(UsageError) as caught:
            hub_rows(str(path), split, [column])
        assert complaint in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
