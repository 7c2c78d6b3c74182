import re
from pathlib import Path

import pytest

from red_lightning.errors import UsageError
from red_lightning.metrics import read_pairs, read_predictions, read_references


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffCafé one\r\ntwo \u2028 parts\n\n\nthree\n\n".encode())
    assert read_references(path) == [["Café one", "two \u2028 parts"], ["three"]]
    assert read_predictions(path) == ["Café one", "two \u2028 parts", "", "", "three", ""]


def test_references_without_blank_lines_are_single(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    assert read_references(path) == [["one"], ["two"]]


def test_blank_lines_at_the_end_do_not_make_a_group(tmp_path: Path) -> None:
    """measure_scores.py of e2e-metrics takes lines that no blank line separates for single references."""
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n")
    assert read_references(path) == [["one"], ["two"]]


def test_tables_are_paired_by_their_meaning_representations(tmp_path: Path) -> None:
    references, predictions = tmp_path / "refs.csv", tmp_path / "pred.csv"
    references.write_text('mr,ref\nA,a1\nB,b1\nA,a2\nC,"c\n1"\n')
    predictions.write_text("mr,output\nC,c\nA,a\nB,b\nA,a\n")
    assert read_pairs(references, predictions) == ([["a1", "a2"], ["b1"], ["c\n1"]], ["a", "b", "c"])
    assert read_references(references) == [["a1", "a2"], ["b1"], ["c\n1"]]
    for text, said in (
        ("mr,output\nC,c\nA,a\n", "has no prediction of the mr 'B' (1 of 3 are missing)"),
        ("mr,output\nC,c\nA,a\nB,b\nD,d\n", "has the mr 'D', which"),
        ("mr,output\nC,c\nA,a\nB,b\nA,x\n", "has 2 predictions of the mr 'A'"),
    ):
        predictions.write_text(text)
        with pytest.raises(UsageError, match=re.escape(said)):
            read_pairs(references, predictions)
    predictions = tmp_path / "pred.txt"
    predictions.write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"3 groups of references but .* 2 predictions"):
        read_pairs(references, predictions)


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
        ("a.tsv", b"mr\tref\nx\ty\tz\n", "line 2, has 3 columns where the first line has 2"),
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
