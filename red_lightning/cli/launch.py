"""Build the command line of the training commands, and run it."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import red_lightning.evaluation  # noqa: F401 - a config names its callback
from red_lightning.callbacks import PredictionWriter, Preemption, RunSummary, Throughput
from red_lightning.cli import configs, includes
from red_lightning.cli.parser import RedParser
from red_lightning.compat.argument_parser import missing_package, strategy_without_package
from red_lightning.errors import UsageError, cannot_write
from red_lightning.paper import register_resolvers
from red_lightning.runs import folder
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

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk, a quota or the largest allowed file is full."""

NAMES_METHOD = re.compile(r"--model(\.init_args)?\.method(\.class_path)?(=|$)")
"""An option that names a method, in each of its spellings."""


def launch(cli: Any, args: Sequence[str]) -> None:
    """Parse a command line and run it.

    Args:
        cli: The LightningCLI class that runs it.
        args: The command line, from the command's name on.
    """
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a package that speeds 4 bits up on CPUs
    args = with_fresh_method(includes.checked(configs.with_files(args)))
    files = [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    cli.config_file = files[-1] if files else None
    register_resolvers()
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    preemption = Preemption()
    with preemption.listening():
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
                    "callbacks": [PredictionWriter(), RunSummary(), Throughput(), preemption],
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                    "inference_mode": False,  # a test before the fit leaves metrics that could not be updated in it
                },
                args=args,
            )
        except BaseException as error:
            complaint = _unwritable(error) or _missing_package(error) or _misconfigured(error)
            folder.discard()
            if complaint is not None:
                raise complaint from error
            raise
        folder.settle()


def with_fresh_method(args: Sequence[str]) -> list[str]:
    """A command line on which a method that is named starts from its own defaults.

    jsonargparse keeps what the config says of another method where both have an option of that name: LoRA would adapt
    RED's sites. A method without options in between makes it forget them.

    Args:
        args: The command line; ``--model.method NAME`` may be in it, or a second ``--config=FILE`` that names a method.
    """
    result: list[str] = []
    configured = False
    for arg in args:
        if NAMES_METHOD.match(arg) or (configured and arg.startswith("--config=") and _names_method(Path(arg[9:]))):
            result.append("--model.method=HeadOnly")
        configured |= arg.startswith("--config=")
        result.append(arg)
    return result


def _names_method(config: Path) -> bool:
    """Whether a config names a method, and not some of its options alone."""
    try:
        model = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
        method = {**model, **model.get("init_args", {})}["method"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return False  # there is none, or the parser will complain
    return isinstance(method, str) or (isinstance(method, dict) and "class_path" in method)


def _unwritable(error: BaseException) -> UsageError | None:
    """The complaint, if a run ended because something in its folder cannot be written (a log, the results, ...).

    Where a checkpoint could not be written, a logger usually fails next, so that the first complaint is what counts.
    """
    if not isinstance(error, OSError):
        return None
    earlier = error.__context__
    while earlier is not None:
        if isinstance(earlier, UsageError):
            return earlier
        earlier = earlier.__context__
    run = Path(os.environ.get(folder.CHOSEN, os.devnull))
    file = Path(str(error.filename)) if error.filename else run
    if error.errno not in FULL and run not in (file, *file.parents):
        return None
    continuing = "put that right, and continue with --ckpt_path last"
    can_continue = (run / "checkpoints" / "last.ckpt").exists()
    return cannot_write(f"'{file}'", error, continuing if can_continue else "choose another place with --run.folder")


def _misconfigured(error: BaseException) -> UsageError | None:
    """The complaint, if Lightning refuses settings, such as a GPU's strategy without a GPU."""
    if not isinstance(error, MisconfigurationException):
        return None
    return UsageError(f"the trainer cannot run so: {str(error).splitlines()[0]}")


def _missing_package(error: BaseException) -> UsageError | None:
    """The complaint, if a logger or a strategy needs a package that is not installed."""
    if own := strategy_without_package(error):
        return UsageError(own)
    found = missing_package(error)
    if found is None:
        return None
    return UsageError(f"{found[0]} needs a package that is not installed: pip install '{found[1]}'")
