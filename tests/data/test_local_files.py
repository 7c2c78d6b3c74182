"""Reading rows from files; every bad file is named in one line."""

import csv
import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from red_lightning.data.local_files import as_text, file_records, file_rows
from red_lightning.data.row_reports import RowReport
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
    assert "unknown ending" in message and "one of .csv, .tsv, .jsonl, .ndjson, .parquet, .txt" in message


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
    for ending, header in (("csv", b"source"), ("tsv", b"source"), ("jsonl", b"{}"), ("txt", b"source")):
        path = write(tmp_path / f"rows.{ending}", header + b"\na\ncaf\xe9\n")
        message = refused(path, ["source"])
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
        ('{"source": "\\ud83d", "target": "b"}', "'source' is no text"),
    ],
)
def test_malformed_json_names_its_line(line: str, complaint: str, tmp_path: Path) -> None:
    message = refused(write(tmp_path / "rows.jsonl", f'{{"source": "a", "target": "b"}}\n\n{line}\n'))
    assert "line 3 of" in message and complaint in message


def texts_of(path: str, column: str) -> list[str]:
    return [as_text(record[column], f"{where}: '{column}'") for where, record in file_records(path, [column])]


def test_an_empty_value_is_refused_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "text,label,note\na,x,\nb, ,\nc,y,z\n")
    assert refused(path, ["text", "label"]).startswith(f"line 3 of '{path}' has an empty 'label'")
    report = RowReport("skip")
    assert [row["text"] for row in file_rows(path, ["text", "label"], report)] == ["a", "c"]
    assert report.notes == [
        f"1 of 3 rows of '{path}' are bad and left out: line 3 of '{path}' has an empty 'label'; fill it in or remove "
        "the row",
        "columns that are not used: note (1 rows)",
    ]
    missing = write(tmp_path / "rows.jsonl", '{"text": "a"}\n{"txt": "b"}\n[]\n')
    assert len(file_rows(missing, ["text"], report)) == 1 and len(report.bad[missing]) == 2


def test_values_that_are_no_strings_become_text(tmp_path: Path) -> None:
    values = [True, False, None, 3, 4.5, float("nan"), "x"]
    lines = write(tmp_path / "rows.jsonl", "\n".join(json.dumps({"label": value}) for value in values))
    expected = ["true", "false", "", "3", "4.5", "", "x"]
    assert texts_of(lines, "label") == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_text_file_has_one_text_per_line(newline: str, encoding: str, tmp_path: Path) -> None:
    texts = ["plain", ' "quoted", {x}\t', "ünïcödé 日本", "line\u2028separator\x85 \x0b", "source"]
    path = tmp_path / "rows.txt"
    path.write_bytes((newline * 2 + f"{newline} {newline}".join(texts)).encode(encoding))
    assert file_rows(str(path), ["source"]) == [{"source": text} for text in texts]


def test_a_text_file_has_no_further_column(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.txt", "a\n")
    message = refused(path, ["text", "label"])
    assert message == (
        f"the text file '{path}' has one text per line and so no column 'label'; "
        "give a .csv, .tsv, .jsonl or .parquet file"
    )
    assert "has no rows" in refused(write(tmp_path / "blank.txt", " \n\r\n"), ["text"])


def write_parquet(path: Path, **columns: Any) -> str:
    parquet.write_table(arrow.table(columns), path)
    return str(path)


def test_parquet_gives_back_what_was_written(tmp_path: Path) -> None:
    sources, targets = zip(*TEXTS, strict=True)
    path = write_parquet(tmp_path / "rows.PARQUET", id=list(range(6)), target=targets, other=[[1]] * 6, source=sources)
    assert [(row["source"], row["target"]) for row in file_rows(path, COLUMNS)] == TEXTS
    assert list(file_rows(path, COLUMNS)[0]) == COLUMNS


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([True, None, False], ["true", "", "false"]),
        ([1, None, -1], ["1", "", "-1"]),
        ([0.5, float("nan"), None], ["0.5", "", ""]),
        (arrow.array(["a", None, "a"]).dictionary_encode(), ["a", "", "a"]),
        (arrow.array(["a", None, ""], arrow.large_string()), ["a", "", ""]),
        (arrow.array([3, 0, 255], arrow.uint8()), ["3", "0", "255"]),
        (arrow.nulls(3), ["", "", ""]),
    ],
)
def test_parquet_values_become_text(column: Any, expected: list[str], tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", label=column)
    assert texts_of(path, "label") == expected


@pytest.mark.parametrize(
    "value", [["a"], {"a": 1}, b"a", decimal.Decimal("1.5"), datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1)]
)
def test_parquet_values_without_a_text_name_their_row(value: Any, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", source=["x"] * 3, label=[None, None, value])
    with pytest.raises(UsageError, match=r"row 3 of .*'label' is no text but"):
        texts_of(path, "label")
    assert len(file_rows(path, ["source"])) == 3


def test_bad_parquet_files_are_named(tmp_path: Path) -> None:
    path = Path(write_parquet(tmp_path / "rows.parquet", sourse=["a"] * 99, target=["b" * 99] * 99))
    assert "no column 'source': did you mean 'sourse'? known: sourse, target" in refused(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[4:60] = bytes(56)
    for content in (b"", b"source,target\na,b\n", whole[:60], whole[:-9], whole[9:], bytes(flipped)):
        assert "damaged or not a Parquet file" in refused(write(path, content), ["sourse", "target"])
    assert "has no rows" in refused(write_parquet(path, source=[], target=[]))
    parquet.write_table(arrow.Table.from_arrays([arrow.array(["a"])] * 3, ["source", "target", "target"]), path)
    assert "names the column 'target' twice" in refused(path)
    invalid = arrow.array([b"caf\xe9"]).view(arrow.string())
    assert "damaged" in refused(write_parquet(path, source=invalid), ["source"])


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


@pytest.mark.parametrize("header", ["text;label", '"text";"label"'])
def test_semicolons_are_named(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\nx;y\n", encoding="utf-8")
    with pytest.raises(UsageError, match="separated by semicolons"):
        file_rows(str(tmp_path / "a.csv"), ["text"])


def test_a_field_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "x" * 200_000 + "\n", encoding="utf-8")
    assert len(file_rows(str(tmp_path / "a.csv"), ["text"])[0]["text"]) == 200_000
