"""Draw mean grades by category as a radar chart (paper, Figure 2)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from red_lightning.errors import UsageError
from red_lightning.pictures.edits_by_layer import figure_class

HIGHEST = 10.0


def draw_radar(
    models: Mapping[str, Mapping[str, float | None]],
    target: Path,
    title: str,
    published: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """Draw a closed line for each model, over one spoke a category and the grades 0 to 10.

    A category in which a model has no grade has no point, and the line is open there.

    Args:
        models: Model -> category -> mean grade. The first model's categories are the spokes, from the top clockwise.
        target: The PNG, SVG or PDF file to write.
        title: What stands above the picture.
        published: The same of a paper's models, as dashed lines.

    Raises:
        UsageError: matplotlib is missing, there are fewer than three categories, or the file cannot be written.
    """
    new_figure = figure_class()
    spokes = list(next(iter(models.values()), {}))
    if len(spokes) < 3:
        raise UsageError(f"a radar picture needs at least three categories, but there are {len(spokes)}")
    figure = new_figure(figsize=(6.4, 6.2), layout="constrained")
    axis = figure.add_subplot(projection="polar")
    angles = [2 * math.pi * index / len(spokes) for index in range(len(spokes))]
    for number, (name, grades) in enumerate(models.items()):
        _draw_line(axis, angles, [grades.get(spoke) for spoke in spokes], name, f"C{number % 10}", "-")
    for number, (name, grades) in enumerate((published or {}).items(), start=len(models)):
        _draw_line(axis, angles, [grades.get(spoke) for spoke in spokes], name, f"C{number % 10}", "--")
    _set_up(axis, angles, spokes)
    figure.suptitle(title, fontsize=11, parse_math=False)
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names are names, however many dollars they hold
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture '{target}' cannot be written: {error}") from error


def _set_up(axis: Any, angles: list[float], spokes: list[str]) -> None:
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)
    axis.set_ylim(0, HIGHEST)
    axis.set_yticks(range(2, 11, 2))
    axis.tick_params(axis="y", labelsize=7, labelcolor="grey")
    axis.set_rlabel_position(math.degrees(angles[1]) / 2)  # between two spokes
    axis.set_xticks(angles, [spoke.capitalize() if spoke != "stem" else "STEM" for spoke in spokes], fontsize=9)
    for angle, label in zip(angles, axis.get_xticklabels(), strict=True):  # beside the circle, not across it
        right = round(math.sin(angle), 6)
        label.set_horizontalalignment("left" if right > 0 else "right" if right < 0 else "center")
    axis.grid(color="#dddddd", linewidth=0.7)
    axis.spines["polar"].set_color("#bbbbbb")


def _draw_line(axis: Any, angles: list[float], grades: list[float | None], name: str, color: str, style: str) -> None:
    values = [math.nan if grade is None else grade for grade in grades]
    closed = ([*angles, angles[0]], [*values, values[0]])
    axis.plot(*closed, style, color=color, linewidth=1.6, marker="o", markersize=3.5, label=name)
    if style == "-" and all(grade is not None for grade in grades):
        axis.fill(*closed, color=color, alpha=0.08)
