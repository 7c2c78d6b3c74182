from pathlib import Path

import pytest

from red_lightning.errors import UsageError
from red_lightning.metrics import read_predictions, read_references


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffCafé one\r\ntwo \u2028 parts\n\n\nthree\n\n".encode())
    assert read_references(path) == [["Café one", "two \u2028 parts"], ["three"]]
    assert read_predictions(path) == ["Café one", "two \u2028 parts", "", "", "three", ""]


def test_references_without_blank_lines_are_single(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    assert read_references(path) == [["one"], ["two"]]


def test_one_group_ends_with_a_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n")
    assert read_references(path) == [["one", "two"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'mr,ref\n"name[A], x",one\n"name[A], x","two, ""2"""\nname[B],three\n'),
        ("a.tsv", 'MR\tsystem_output\nname[A]\tone\nname[A]\t"two, ""2"""\nname[B]\tthree\n'),
        ("a.TSV", 'name[A]\tone\n\nname[A]\t"two, ""2"""\nname[B]\tthree\n'),
        ("a.csv", '"meaning_representation",id,human_reference\nA,1,one\nA,2,"two, ""2"""\nB,3,three\n'),
    ],
)
def test_tables(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_references(path) == [["one", 'two, "2"'], ["three"]]
    assert read_predictions(path) == ["one", 'two, "2"', "three"]


@pytest.mark.parametrize("read", [read_references, read_predictions])
@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\n \n", "is empty"),
        ("a.txt", b"one\ncaf\xe9\n", "line 2, is not UTF-8"),
        ("a.csv", b"mr,ref\n", "header but no rows"),
        ("a.csv", b"a,b,c\n1,2,3\n", "columns mr and ref, got: a, b, c"),
        ("a.tsv", b"mr\tref\nx\ty\tz\n", "row 2, has 3 columns where the first row has 2"),
    ],
)
def test_bad_files(read: object, name: str, raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    assert callable(read)
    with pytest.raises(UsageError, match=message):
        read(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_predictions(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="is a folder"):
        read_predictions(tmp_path)
