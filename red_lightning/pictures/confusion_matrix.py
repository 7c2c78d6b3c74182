"""Draw a confusion matrix."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from red_lightning.errors import UsageError
from red_lightning.pictures.edits_by_layer import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_CLASS = "no class"
COLOURS, INK, LINES = "Blues", "#222222", "#d9d9d9"
DARK = 0.6  # the row share from which on white is easier to read on the colour than ink

MOST_WITH_TEXT = 15  # classes; of more than that the cells get colours only
LONGEST_NAME = 24  # characters
WIDEST = 24.0  # inches of the cells together, whatever the number of classes
LEAST_TICK = 0.17  # inches between names, which are 8 points high
LETTER = 0.07  # inches that a letter of a name is wide, rather more than less


def draw_confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], target: Path) -> None:
    """Draw a confusion matrix: true classes from top to bottom, predicted ones from left to right.

    A cell shows its count and its share of the row, which is also its colour. Of many classes only colours are shown.

    Args:
        counts: One row per true class, one column per predicted class and, if there is one more, one for outputs that
            are no class; that column is drawn only if it counts something.
        labels: The names of the classes.
        target: The PNG, SVG or PDF file to write.

    Raises:
        UsageError: matplotlib is missing, the counts do not fit the labels, or the file cannot be written.
    """
    figure = confusion_figure(counts, labels)
    try:
        figure.savefig(target, dpi=150, bbox_inches="tight", pad_inches=0.1)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture '{target}' cannot be written: {error}") from error


def confusion_figure(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> "Figure":
    """Build the figure that `draw_confusion` writes; see there.

    Raises:
        UsageError: matplotlib is missing, or the counts do not fit the labels.
    """
    new_figure = figure_class()
    rows = _rows(counts, labels)
    names = short_names(labels)
    with_text = len(rows) <= MOST_WITH_TEXT
    columns = len(rows[0])
    cell = _cell_size(rows, with_text)
    # constrained layout shrinks the cells to make room, so the names and titles come on top of what the cells need
    name_width = LETTER * max(len(name) for name in names)
    margin = (name_width + (0.6 if with_text else 1.3), name_width * (0.75 if with_text else 1) + 0.6)
    figure = new_figure(figsize=(cell * columns + margin[0], cell * len(rows) + margin[1]), layout="constrained")
    axis = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in rows]
    edges: dict[str, Any] = {"edgecolors": LINES, "linewidth": 0.8} if with_text else {"rasterized": True}
    cells = axis.pcolormesh(shares, cmap=COLOURS, vmin=0.0, vmax=1.0, **edges)
    axis.set_aspect("equal")
    axis.invert_yaxis()
    if with_text:
        _write_cells(axis, rows, shares)
    else:
        bar = figure.colorbar(
            cells, ax=axis, fraction=0.03, pad=0.02, label="share of the true class", format="{x:.0%}"
        )
        bar.outline.set_visible(False)
    _write_names(axis, names, columns, cell)
    if columns > len(rows):
        axis.axvline(len(rows), color=INK, linewidth=1.2)
    return figure


def short_names(labels: Sequence[str]) -> list[str]:
    """Names for the ticks: long ones without their middle, and numbered where that makes them equal."""
    names = [" ".join(str(label).split()) for label in labels]
    half = (LONGEST_NAME - 1) // 2
    short = [name if len(name) <= LONGEST_NAME else f"{name[: half + 1]}…{name[-half:]}" for name in names]
    return [f"{index}: {name}" if short.count(name) > 1 else name for index, name in enumerate(short)]


def _rows(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> list[list[int]]:
    rows = [[int(count) for count in row] for row in counts]
    widths = {len(row) for row in rows}
    if not rows or len(rows) != len(labels) or widths not in ({len(rows)}, {len(rows) + 1}):
        raise UsageError(
            f"a confusion matrix of {len(labels)} labels needs as many rows and columns (and one column more for "
            f"'{NO_CLASS}'), but has {len(rows)} rows of {' or '.join(map(str, sorted(widths))) or 0} columns"
        )
    unread = widths == {len(rows) + 1} and any(row[-1] for row in rows)
    return rows if unread else [row[: len(rows)] for row in rows]


def _cell_size(rows: Sequence[Sequence[int]], with_text: bool) -> float:
    if not with_text:
        return min(0.24, WIDEST / len(rows))
    digits = max(len(str(count)) for row in rows for count in row)
    return max(0.75 if len(rows) > 4 else 0.95, 0.1 * digits + 0.15)


def _write_cells(axis: Any, rows: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> None:
    for top, (row, row_shares) in enumerate(zip(rows, shares, strict=True)):
        for left, (count, share) in enumerate(zip(row, row_shares, strict=True)):
            # out of the layout, as hundreds of texts inside the cells make it slow and change nothing
            where: dict[str, Any] = {"ha": "center", "color": "white" if share > DARK else INK, "in_layout": False}
            axis.text(left + 0.5, top + 0.52, str(count), va="bottom", fontsize=10, **where)
            # a class without rows has no shares
            below = f"{share:.1%}" if any(row) else "-"
            axis.text(left + 0.5, top + 0.58, below, va="top", fontsize=7, **where)


def _write_names(axis: Any, names: Sequence[str], columns: int, cell: float) -> None:
    step = max(1, ceil(LEAST_TICK / cell))
    # names are names, however many dollars they hold
    plain: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    down = range(0, len(names), step)
    axis.set_yticks([top + 0.5 for top in down], [names[top] for top in down], **plain)
    # of two columns too close to each other, the one of no class is named
    across = [left for left in down if columns == len(names) or left + step <= len(names)]
    across += range(len(names), columns)
    predicted = [[*names, NO_CLASS][left] for left in across]
    if cell < 0.5:
        plain["rotation"] = 90
    elif LETTER * max(len(name) for name in predicted) > cell:
        plain |= {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks([left + 0.5 for left in across], predicted, **plain)
    axis.tick_params(length=0 if step == 1 else 2)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.spines[:].set_visible(False)
