"""Cells that one command can compute together, as replicas: in one pass of one frozen backbone."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from red_lightning.reproduction.cells import Cell, setting, written

SHARED = (
    "config",
    "model.backbone",
    "model.class_path",
    "model.method",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.precision",
    "trainer.strategy",
)
"""What replicas cannot differ in, because they share the passes of a backbone."""


def is_shared(key: str) -> bool:
    """Whether replicas cannot differ in a setting.

    Args:
        key: Its full name, such as ``model.method.sites``, or ``model.init_args.method.init_args.sites``.
    """
    key = key.replace(".init_args", "")
    return any(key == shared or key.startswith((f"{shared}.", f"{shared}_")) for shared in SHARED)


def on_one_device(trainer: Any) -> bool:
    """Whether a trainer's settings leave it on a single device, as replicas need it.

    Args:
        trainer: Its settings, a mapping or a namespace.
    """
    devices = trainer.get("devices", "auto")
    one = devices in ("auto", "1", 1) or (isinstance(devices, list) and len(devices) == 1)
    return one and trainer.get("strategy", "auto") == "auto" and trainer.get("num_nodes", 1) == 1


def grouped(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Group cells that can be computed together, in the order of the first of each group.

    Args:
        cells: They.
        size: How many a group holds at most. A cell that shares its backbone with no other is a group of its own.
    """
    groups: list[list[Cell]] = []
    filling: dict[str, list[Cell]] = {}
    for cell in cells:
        likeness = _likeness(cell)
        if len(filling.get(likeness, [])) in (0, size):
            filling[likeness] = []
            groups.append(filling[likeness])
        filling[likeness].append(cell)
    return groups


def fit(config: str, settings: Mapping[str, Any]) -> list[str]:
    """The command line of ``fit`` from its name on.

    Args:
        config: How ``--config`` names the experiment.
        settings: What to change there, by full name.
    """
    return ["fit", f"--config={config}", *(f"--{key}={written(value)}" for key, value in settings.items())]


def command(cells: Sequence[Cell], own: Sequence[Mapping[str, Any]], folder: Path, logs: Path) -> list[str]:
    """The command line that runs the cells of a group: an ordinary one, or that of replicas.

    Args:
        cells: They.
        own: More settings of each, such as where it writes.
        folder: Where the command itself writes if they are several, under the name of the first.
        logs: Where each of several prints into a file NAME.log.
    """
    settings = {**cells[0].settings, **own[0]}
    if len(cells) > 1:
        own = [{**more, "log": str(logs / f"{cell.name}.log")} for cell, more in zip(cells, own, strict=True)]
        place = {"run.folder": str(folder), "run.name": cells[0].name, "run.overwrite": True}
        settings = {**_together(cells, own), **place}
    return [sys.executable, "-m", "red_lightning", *fit(cells[0].config, settings)]


def _together(cells: Sequence[Cell], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What cells share, and as replicas what is their own."""
    every = [cell.settings for cell in cells]
    alike = {key: value for key, value in every[0].items() if all(key in of and of[key] == value for of in every)}
    differing = tuple(f"{key}." for of in every for key in of if key not in alike)
    alike = {key: value for key, value in alike.items() if not key.startswith(differing)}  # a class, then its own
    replicas = [
        {**{key: value for key, value in of.items() if key not in alike}, **more}
        for of, more in zip(every, own, strict=True)
    ]
    return {**alike, "model.method.replicas": replicas}


def _likeness(cell: Cell) -> str:
    """What a cell has in common with those that can share its backbone; its name if none can."""
    method = setting(cell.experiment, "model.method")
    name = method.get("class_path") if isinstance(method, dict) else method
    sections = {section: cell.experiment.get(section) or {} for section in ("model", "trainer")}
    if str(name).rsplit(".", 1)[-1] != "RED" or not on_one_device(sections["trainer"]):
        return cell.name
    given = {key: value for key, value in cell.settings.items() if is_shared(key)}
    resolved = {
        f"{section}.{key}": value
        for section, of in sections.items()
        for key, value in {**of, **(of.get("init_args") or {})}.items()
        if is_shared(f"{section}.{key}")
    }
    return json.dumps([cell.config, given, resolved], sort_keys=True, default=str)
