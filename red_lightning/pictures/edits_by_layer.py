"""Draw the learned scaling and bias by layer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from red_lightning.errors import UsageError

INK, BAND = "#1f4e79", ("#c6dbef", "#6baed6")


def figure_class() -> Any:
    """Matplotlib's ``Figure``.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("drawing needs matplotlib: python -m pip install matplotlib") from error
    return Figure


def draw_edits(tensors: Mapping[str, Tensor], title: str, target: Path) -> None:
    """Draw the learned vectors: one panel per site and vector, layers from left to right.

    A line is the median over the columns of a layer, the bands hold 50% and 90% of them, dots are the extremes, and
    the dashed line is the identity.

    Args:
        tensors: float32 vectors of shape (width,) by site name, as :func:`read_edits` returns them.
        title: What stands above the picture.
        target: The PNG, SVG or PDF file to write.

    Raises:
        UsageError: matplotlib is missing, or the edits hold no scaling or bias vectors.
    """
    new_figure = figure_class()
    panels = _panels(tensors)
    if not panels:
        raise UsageError("these edits hold no scaling or bias vectors, so there is nothing to draw")
    sites = list(dict.fromkeys(site for site, _ in panels))
    vectors = [vector for vector in ("scaling", "bias") if any(kind == vector for _, kind in panels)]
    figure = new_figure(figsize=(5.2 * len(vectors), 2.6 * len(sites) + 0.6), layout="constrained")
    axes = figure.subplots(len(sites), len(vectors), squeeze=False)
    for row, site in enumerate(sites):
        for column, vector in enumerate(vectors):
            _draw_panel(axes[row][column], panels.get((site, vector), {}), vector, site)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(target, dpi=150)


def _panels(tensors: Mapping[str, Tensor]) -> dict[tuple[str, str], dict[int, Tensor]]:
    """Vectors by (site without its layer number, scaling or bias), then by layer."""
    panels: dict[tuple[str, str], dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        site, _, vector = name.rpartition(".")
        number = re.search(r"\.(\d+)\.", f".{site}.")
        if vector in ("scaling", "bias") and tensor.dim() == 1 and number:
            key = (f".{site}.".replace(number[0], ".*.", 1).strip("."), vector)
            panels.setdefault(key, {})[int(number[1])] = tensor.float()
    return panels


def _draw_panel(axis: Any, layers: Mapping[int, Tensor], vector: str, site: str) -> None:
    if not layers:
        axis.set_axis_off()
        return
    numbers = sorted(layers)
    columns = [layers[number] for number in numbers]
    for (low, high), colour in zip(((0.05, 0.95), (0.25, 0.75)), BAND, strict=True):
        lower = [float(column.quantile(low)) for column in columns]
        upper = [float(column.quantile(high)) for column in columns]
        label = f"{round((high - low) * 100)}% of the columns"
        axis.fill_between(numbers, lower, upper, color=colour, linewidth=0, label=label)
    axis.plot(numbers, [float(column.median()) for column in columns], color=INK, label="median")
    for extreme in (min, max):
        axis.plot(numbers, [float(extreme(column)) for column in columns], ".", color=INK, markersize=4)
    axis.axhline(1.0 if vector == "scaling" else 0.0, color="black", linewidth=0.8, linestyle="--", label="identity")
    axis.set_xticks(numbers if len(numbers) <= 16 else numbers[:: len(numbers) // 8])
    axis.set(title=f"{vector} at {site}", xlabel="layer")
    axis.title.set_fontsize(9)
    axis.spines[["top", "right"]].set_visible(False)
