"""Build the command line of the training commands, and run it."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import set_parsing_settings
from lightning import LightningDataModule, Trainer

from red_lightning.callbacks import FiniteLoss, PredictionWriter, RunSummary
from red_lightning.cli import configs, run_folder
from red_lightning.cli.parser import RedParser
from red_lightning.reproduction import register_resolvers
from red_lightning.tasks import BackboneTask

QUIET = [
    ".*does not have many workers.*",
    ".*`srun` command is available.*",
    ".*is smaller than the logging interval.*",
    ".*GPU available but not used.*",
    ".*It is recommended to use `self.log.*sync_dist=True.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
]
"""Warnings that tell a user nothing: data are prepared in time, and runs on one CPU are meant."""


def launch(cli: Any, args: Sequence[str]) -> None:
    """Parse a command line and run it.

    Args:
        cli: The LightningCLI class that runs it.
        args: The command line, from the command's name on.
    """
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    args = configs.with_files(args)
    files = [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    cli.config_file = files[-1] if files else None
    register_resolvers()
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    try:
        cli(
            BackboneTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_class=RedParser,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "python -m red_lightning"},
            auto_configure_optimizers=False,
            seed_everything_default=42,
            trainer_class=Trainer,
            trainer_defaults={
                "callbacks": [FiniteLoss(), PredictionWriter(), RunSummary()],
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            args=args,
        )
    except BaseException:
        run_folder.discard()
        raise
    run_folder.settle()
