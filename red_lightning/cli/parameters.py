"""``parameters``: what a config trains, found out without loading weights."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from red_lightning.adapters import site_name
from red_lightning.cli.launch import launch
from red_lightning.cli.training import RedCLI
from red_lightning.data import ClassificationDataModule
from red_lightning.tasks import ClassifierTask


class ParametersCLI(RedCLI):
    """Reads a config as ``fit`` does, but builds the task alone and prints a table."""

    def before_instantiate_classes(self) -> None:
        """No folder is needed."""

    def instantiate_classes(self) -> None:
        """Build the task and the data module, of which nothing is read but the labels."""
        config = self.config[self.subcommand]
        parts = config.__class__(model=config.model, data=config.data)
        built = self.command_parser.instantiate(parts)
        self.model, self.datamodule = built.model, built.data

    def after_instantiate_classes(self) -> None:
        """Look at the task; nothing is run after it."""
        self.look()
        self.subcommand = None

    def look(self) -> None:
        """Print what the task trains."""
        backbone = self.model.load_backbone(meta=True)
        whole = sum(parameter.numel() for parameter in backbone.parameters())
        trains = self.model.method.apply(backbone)
        head = self._head()
        print_table(self.model.source.name, self.model.method.describe(), trains, whole)
        if head:
            print(f"besides, the head trains {head:,} numbers, which are not counted above (nor in the paper's tables)")

    def _head(self) -> int:
        """Numbers of the head, if the task has one."""
        if isinstance(self.datamodule, ClassificationDataModule) and isinstance(self.model, ClassifierTask):
            self.model.labels = self.datamodule.label_names()
        self.model.build_head(meta=True)
        head = getattr(self.model, "head", None)
        return sum(parameter.numel() for parameter in head.parameters()) if head is not None else 0


def print_table(name: str, method: dict[str, Any], trains: dict[str, Any], whole: int) -> None:
    """Print one row per trained tensor, and their sum.

    Args:
        name: The backbone.
        method: The method's name and options.
        trains: The parameters that train, by name.
        whole: Number of parameters of the backbone.
    """
    options = ", ".join(f"{key}: {value}" for key, value in method.items() if key != "name")
    title = f"{method['name']} ({options}) on {name}" if options else f"{method['name']} on {name}"
    table = Table(title=title, title_justify="left", show_footer=True)
    count = sum(parameter.numel() for parameter in trains.values())
    table.add_column("trains", footer=f"{len(trains)} tensors", overflow="fold")
    table.add_column("shape", justify="right")
    table.add_column("count", justify="right", footer=f"{count:,}")
    table.add_column("share of the backbone", justify="right", footer=f"{count / whole:.4%} of {whole:,}")
    for key, parameter in trains.items():
        shape = " x ".join(str(size) for size in parameter.shape)
        table.add_row(site_name(key), shape, f"{parameter.numel():,}", f"{parameter.numel() / whole:.4%}")
    Console().print(table)


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: Options as those of ``fit``.
    """
    launch(ParametersCLI, ["fit", *args])
