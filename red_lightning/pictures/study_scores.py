"""Draw the scores of a study against the number of trainable parameters."""

from math import ceil, log10
from pathlib import Path
from typing import Any

from red_lightning.pictures.edits_by_layer import figure_class
from red_lightning.studies.cell_results import AVERAGE, Results, Row

MOST_ACROSS = 4
NAME_WIDTH, NAME_HEIGHT = 1.4, 0.18
"""Inches of a row's name below the panels."""


def draw_results(results: Results, target: Path) -> None:
    """Draw each row as a point with its standard deviation; the paper's as a hollow one.

    Args:
        results: What was found.
        target: The PNG, SVG or PDF file to write.

    Raises:
        UsageError: matplotlib is missing.
    """
    new_figure = figure_class()
    from matplotlib.lines import Line2D

    columns = [column for column in results.columns if column != AVERAGE]
    across = min(MOST_ACROSS, len(columns))
    down = ceil(len(columns) / across)
    width, height = (5.6, 3.8) if across == 1 else (3.4 * across, 2.9 * down)
    beside = max(1, int(width / NAME_WIDTH))
    below = NAME_HEIGHT * ceil((len(results.rows) + 1) / beside) + 0.5
    figure = new_figure(figsize=(width, height + below), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    looks = {row: (f"C{index % 10}", "osD^vP*X"[index // 10 % 8]) for index, row in enumerate(results.rows)}
    for panel, column in zip(panels, columns, strict=False):
        _draw_panel(panel, results, column, looks)
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    marks = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=" ".join(row))
        for row, (color, marker) in looks.items()
    ]
    if any(results.published[row].scores for row in results.rows):
        marks.append(Line2D([], [], color="grey", marker="o", linestyle="", fillstyle="none", label="the paper's"))
    figure.legend(handles=marks, loc="outside lower center", ncols=beside, fontsize=8, frameon=False)
    figure.suptitle(results.study.title, fontsize=11, parse_math=False)
    figure.savefig(target, dpi=150)


def _draw_panel(panel: Any, results: Results, column: str, looks: dict[Row, tuple[str, str]]) -> None:
    metric = next((e.metric for (_, name), e in results.entries.items() if name == column and e.metric), "score")
    for row, (color, marker) in looks.items():
        entry, published = results.entries[row, column], results.published[row]
        count = max(results.parameters[row], default=None)
        if entry.mean is not None and count is not None:
            spread = entry.deviation or 0.0
            panel.errorbar(count, entry.mean, spread, color=color, marker=marker, markersize=6, capsize=2)
        score = results.published_score(row, column)
        if score is not None and published.parameters:
            where = count or published.parameters * 1e6  # ours is exact, the paper's rounded
            panel.plot(where, score, color=color, marker=marker, fillstyle="none", linestyle="", markersize=6)
    counts = {count for row in looks for count in results.parameters[row]}
    if 0 in counts:  # a head alone trains nothing of the backbone
        smallest = 10 ** int(log10(min(counts - {0}, default=10)))
        panel.set_xscale("symlog", linthresh=smallest, linscale=0.5)
        panel.set_xticks([tick for tick in panel.get_xticks() if tick == 0 or tick >= smallest])
    else:
        panel.set_xscale("log")
    panel.set_title(column, fontsize=9, parse_math=False)
    panel.set_xlabel("trained parameters", fontsize=8)
    panel.set_ylabel(metric, fontsize=8, parse_math=False)
    panel.tick_params(which="both", labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
