"""How many numbers the cells of a study train, found out without loading weights."""

import json
from typing import Any

from red_lightning.cli.launch import launch
from red_lightning.cli.parameters import ParametersCLI
from red_lightning.errors import usage_error_in
from red_lightning.studies.cells import Cell, setting

DECIDING = ("model.class_path", "model.backbone", "model.backbone_options", "model.method")
"""The settings on which the count depends."""


class Counter:
    """Counts what cells train; equal ones once.

    Attributes:
        reasons: Why some could not be counted, each once.
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._counts: dict[str, int | None] = {}
        self._unknown: set[str] = set()

    def count(self, cell: Cell) -> int | None:
        """The number of trained parameters, the head's not counted; None if it cannot be found out here."""
        key = json.dumps([setting(cell.experiment, name) for name in DECIDING], default=str)
        if key not in self._counts:
            self._counts[key] = self._count(cell)
        return self._counts[key]

    def _count(self, cell: Cell) -> int | None:
        backbone = str(setting(cell.experiment, "model.backbone"))
        if backbone in self._unknown:  # asking for it again takes its time
            return None
        found: list[int] = []

        class Count(ParametersCLI):
            def look(cli) -> None:  # noqa: N805 - `self` is the counter
                self._unknown.add(backbone)
                loaded: Any = cli.model.load_backbone(meta=True)
                self._unknown.discard(backbone)
                found.append(sum(parameter.numel() for parameter in cli.model.method.apply(loaded).values()))

        try:
            launch(Count, ["fit", *cell.options(), "--seed_everything=false"])
        except Exception as error:  # jsonargparse wraps what the task's own checks raise
            if (reason := usage_error_in(error)) is None:
                raise
            if str(reason) not in self.reasons:
                self.reasons.append(str(reason))
        return found[0] if found else None
