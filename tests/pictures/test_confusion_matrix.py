"""The picture of a confusion matrix says what the matrix holds."""

import sys
import warnings
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.pictures import draw_confusion
from red_lightning.pictures.confusion_matrix import LONGEST_NAME, confusion_figure, short_names

COUNTS = [[30, 9, 1, 0], [0, 0, 0, 0], [5, 0, 15, 0]]
LABELS = ["entailment", "neutral", "contradiction"]


def square(classes: int) -> list[list[int]]:
    return [[99 if row == column else 1 for column in range(classes + 1)] for row in range(classes)]


def axes_of(counts: list[list[int]], labels: list[str]) -> Any:
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    figure = confusion_figure(counts, labels)
    agg.FigureCanvasAgg(figure).draw()  # a canvas that keeps its renderer, and lays out
    return figure.axes[0]


def texts(axis: Any) -> list[list[list[str]]]:
    """The texts of each cell, from top to bottom, by row and column."""
    cells: dict[tuple[int, int], list[str]] = {}
    for text in sorted(axis.texts, key=lambda text: text.get_position()[1]):
        left, top = text.get_position()
        cells.setdefault((int(top), int(left)), []).append(text.get_text())
    rows, columns = (max(place) + 1 for place in zip(*cells, strict=True))
    return [[cells[row, column] for column in range(columns)] for row in range(rows)]


def names(ticks: list[Any]) -> list[str]:
    return [tick.get_text() for tick in ticks]


def test_cells_show_counts_and_shares_of_rows() -> None:
    axis = axes_of(COUNTS, LABELS)
    assert texts(axis) == [
        [["30", "75.0%"], ["9", "22.5%"], ["1", "2.5%"]],
        [["0", "-"]] * 3,
        [["5", "25.0%"], ["0", "0.0%"], ["15", "75.0%"]],
    ]
    assert axis.yaxis_inverted()
    assert names(axis.get_xticklabels()) == names(axis.get_yticklabels()) == LABELS
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    sizes = {text.get_text(): text.get_fontsize() for text in axis.texts}
    assert sizes["30"] > sizes["75.0%"]


def test_no_class_is_drawn_where_it_counts_something() -> None:
    unread = [[*row[:3], 7] for row in COUNTS]
    axis = axes_of(unread, LABELS)
    assert names(axis.get_xticklabels()) == [*LABELS, "no class"]
    assert names(axis.get_yticklabels()) == LABELS
    assert [row[3][0] for row in texts(axis)] == ["7"] * 3
    assert texts(axes_of([row[:3] for row in COUNTS], LABELS)) == texts(axes_of(COUNTS, LABELS))


def test_texts_stand_out_from_their_cells() -> None:
    axis = axes_of([[100, 0, 0], [70, 30, 0], [0, 55, 45]], LABELS)
    colours = axis.collections[0].to_rgba(axis.collections[0].get_array().ravel())
    for text in axis.texts:
        left, top = (int(place) for place in text.get_position())
        dark = sum(colours[top * 3 + left][:3]) / 3 < 0.5
        assert (text.get_color() == "white") == dark, text.get_text()


LONG = "the {}th of very many names that are far too long"


@pytest.mark.parametrize(
    ("classes", "name"),
    [*((classes, LONG) for classes in (1, 2, 3, 7, 16, 30, 300)), (3, "contradiction {}"), (15, "{}"), (30, "{}")],
)
def test_nothing_overlaps(classes: int, name: str) -> None:
    counts = square(classes)
    counts[0][0] = 123_456_789
    axis = axes_of(counts, [name.format(index) for index in range(classes)])
    assert names(axis.get_xticklabels())[-1] == "no class"
    assert bool(axis.texts) == (classes <= 15)
    cell = axis.get_window_extent().width / (classes + 1)
    assert all(text.get_window_extent().width < cell for text in axis.texts)
    for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
        if ticks[0].get_rotation() == 40:  # boxes of slanted names overlap where their letters do not
            assert cell > 1.5 * ticks[0].get_fontsize() / 72 * axis.figure.dpi
            continue
        boxes = [tick.get_window_extent() for tick in ticks]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    canvas = axis.figure.get_tightbbox()
    assert max(canvas.width, canvas.height) < 32


def test_larger_matrices_make_larger_pictures() -> None:
    pytest.importorskip("matplotlib")
    labels = [str(index) for index in range(15)]
    widths = [confusion_figure(square(classes), labels[:classes]).get_figwidth() for classes in (2, 4, 8, 15)]
    assert all(one < other for one, other in combinations(widths, 2))


def test_long_names_stay_apart() -> None:
    ends = ["question " + "x" * 40 + end for end in (" one", " two")]
    middles = ["x" * 20 + middle + "y" * 20 for middle in "ab"]
    short = short_names([*ends, *middles, "two\nlines"])
    assert len(set(short)) == 5 and short[-1] == "two lines"
    assert short[0].startswith("question xx") and short[0].endswith("xxx one") and len(short[0]) == LONGEST_NAME
    assert short[2].startswith("2: xxx")


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_writes_files(tmp_path: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"confusion.{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(COUNTS, ["$a$ or $b", "a_b^c", r"\frac{"], target)
    assert target.read_bytes().startswith(start)


def test_bad_input_gets_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for target in (tmp_path / "missing" / "a.png", tmp_path / "a.words"):
        with pytest.raises(UsageError, match="cannot be written"):
            draw_confusion(COUNTS, LABELS, target)
    for counts in (COUNTS[:2], [row[:2] for row in COUNTS], [[1, 2, 3], [1, 2], [3]]):
        with pytest.raises(UsageError, match="of 3 labels needs as many rows and columns"):
            draw_confusion(counts, LABELS, tmp_path / "a.png")
    with pytest.raises(UsageError, match="of 0 labels"):
        draw_confusion([], [], tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        draw_confusion(COUNTS, LABELS, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
