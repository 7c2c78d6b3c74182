"""Every row of a file is used or reported: random rows against the standard library, and the traps of quotes."""

import bz2
import csv
import gzip
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from red_lightning.data.local_files import file_rows
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError

PIECES = ["a", "word ", '"', '""', ",", "\t", "'", "é", "  ", "\\", "日本", "\u2028", "\x85", "\x0b"]
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def texts(draw: random.Random, count: int, without: str = "") -> list[str]:
    """Random texts that are not blank."""
    pieces = [piece for piece in PIECES if not {*piece} & {*without}]
    return ["x" + "".join(draw.choices(pieces, k=draw.randint(0, 6))) for _ in range(count)]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("newlines", [False, True])
def test_what_the_standard_library_writes_is_read_row_by_row(ending: str, newlines: bool, tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / f"rows{ending}"
    for _ in range(30):
        written = [{"text": text, "label": label} for text, label in zip(texts(draw, 9), texts(draw, 9), strict=True)]
        if newlines:
            written[4]["text"] += "\nsecond line"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=DELIMITERS[ending])
            writer.writeheader()
            writer.writerows(written)
        report = RowReport(quoting="quoted" if newlines else "auto")
        assert [dict(row) for row in file_rows(str(path), ["text", "label"], report)] == written
        assert report.rows[str(path)] == 9 and not report.bad


def test_quotes_that_are_text_are_read_as_text(tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "rows.tsv"
    for _ in range(30):
        written = [{"text": f'"{text}', "label": "l"} for text in texts(draw, 9, "\t")]
        path.write_text("text\tlabel\n" + "".join(f"{row['text']}\tl\n" for row in written), encoding="utf-8")
        rows = file_rows(str(path), ["text", "label"], RowReport(quoting="none"))
        assert [dict(row) for row in rows] == written


def test_lines_are_never_merged_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    lines = ["text\tlabel", '"I loved it\tgood', 'every minute of it"\tgood', "plain\tbad"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = r"line 2 of .* ends in line 3, but these lines are rows by themselves; give --data\.quoting none"
    with pytest.raises(UsageError, match=said):
        file_rows(str(path), ["text", "label"])
    assert [row["text"] for row in file_rows(str(path), ["text"], RowReport(quoting="none"))] == [
        '"I loved it', 'every minute of it"', "plain"
    ]  # fmt: skip
    assert len(file_rows(str(path), ["text"], RowReport(quoting="quoted"))) == 2
    path.write_text('text\tlabel\n"Room 1" she said\tgood\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 2 of .* is not valid CSV: .*; give --data\.quoting none"):
        file_rows(str(path), ["text"])


def test_a_quoted_field_of_several_lines_is_one_row_that_begins_in_its_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"Dear all,\nhello, you",a\n\nragged\nb,c\n', encoding="utf-8")
    report = RowReport("skip")
    rows = file_rows(str(path), ["text", "label"], report)
    assert [row["text"] for row in rows] == ["Dear all,\nhello, you", "b"]
    assert [row.number for row in rows] == [0, 2]
    assert report.bad[str(path)][0].startswith("line 5 of") and report.blank[str(path)] == 1


PACK: dict[str, Any] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "csv", "json"])
@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
def test_compressed_files(ending: str, packed: str, tmp_path: Path) -> None:
    rows = [{"text": f"é {n}", "id": f"r{n}"} for n in range(5)]
    content = {
        "csv": "text,id\n" + "".join(f"{row['text']},{row['id']}\n" for row in rows),
        "json": json.dumps(rows),
    }.get(ending, "".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / f"rows.{ending}.{packed}"
    path.write_bytes(PACK[packed](content.encode()))
    read = file_rows(str(path), ["text"])
    assert [(row["text"], row.number, row.id) for row in read] == [(f"é {n}", n, f"r{n}") for n in range(5)]
    path.write_bytes(PACK[packed](content.encode())[:-9])
    with pytest.raises(UsageError, match="cannot be read"):
        file_rows(str(path), ["text"])


def test_zstandard(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.CompressedOutputStream(file, "zstd") as stream:
        stream.write(b'{"text": "a"}\n')
    assert [row["text"] for row in file_rows(str(path), ["text"])] == ["a"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "txt"])
def test_rows_in_are_rows_used_and_rows_reported(ending: str, tmp_path: Path) -> None:
    draw = random.Random(1)
    path = tmp_path / f"rows.{ending}"
    for _ in range(30):
        kinds = [*draw.choices(["good", "bad", "blank"], [5, 2, 1], k=12), "good"]
        good = {"csv": "a,b", "tsv": "a\tb", "jsonl": '{"t": "a", "u": "b"}', "txt": "a"}.get(
            ending, {"t": "a", "u": 1}
        )
        bad = {"csv": "a,b,c", "tsv": "a", "jsonl": "{", "txt": "a"}.get(ending, 7)
        lines = [{"good": good, "bad": bad, "blank": ""}[kind] for kind in kinds]
        if ending == "json":
            kinds = ["bad" if kind == "blank" else kind for kind in kinds]
            path.write_text(json.dumps(lines), encoding="utf-8")
        else:
            head = {"csv": "t,u\n", "tsv": "t\tu\n"}.get(ending, "")
            path.write_text(head + "\n".join(map(str, lines)) + "\n", encoding="utf-8")
        if ending == "txt":
            kinds = ["good" if kind == "bad" else kind for kind in kinds]
        report, name = RowReport("skip"), str(path)
        rows = file_rows(name, ["t"], report)
        counts = (len(rows), len(report.bad.get(name, [])), report.blank[name])
        assert counts == tuple(kinds.count(kind) for kind in ("good", "bad", "blank"))
        used = [kind for kind in kinds if kind != "blank"]
        assert [row.number for row in rows] == [n for n, kind in enumerate(used) if kind == "good"]


def test_a_nul_byte_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na,b\nc\0,d\n")
    with pytest.raises(UsageError, match=r"line 3 of .* holds a NUL byte"):
        file_rows(str(path), ["text"])
