"""Which replicas a config asks for: several runs of ``fit`` at once, each in a folder of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from red_lightning.errors import UsageError
from red_lightning.reproduction.cells import SEED, folder_name, written
from red_lightning.reproduction.groups import is_shared, on_one_device


@dataclass
class Replica:
    """One of several runs.

    Attributes:
        name: Its folder's name.
        settings: What it changes in the command's settings, by full name.
        log: The file into which it prints, which the entry ``log`` names; without that the first prints where the
            command does, and each other one into NAME.log in the folder of all.
    """

    name: str
    settings: dict[str, Any]
    log: str | None = None

    def options(self) -> list[str]:
        """Its settings on a command line."""
        return [f"--{key}={written(value)}" for key, value in self.settings.items()]


def replicas_of(config: Any, command: str | None) -> list[Replica]:
    """The replicas that a config asks for; none for an ordinary run.

    Args:
        config: The settings of a training command, parsed.
        command: The command.

    Raises:
        UsageError: There cannot be such replicas.
    """
    method = (config.model.get("init_args") or {}).get("method") or {}
    given = (method.get("init_args") or {}).get("replicas", 1)
    if given == 1:
        return []
    if command != "fit":
        raise UsageError(
            f"model.method.replicas is for fit; to {command} one of its runs, give the --config of that run's folder"
        )
    if isinstance(given, int):
        given = [{SEED: seed} for seed in _seeds(config.seed_everything, given)]
    if not given:
        raise UsageError("model.method.replicas names no run; give a number, or the settings of each")
    replicas = [_replica(entry) for entry in given]
    _refuse_unfit(replicas)
    _refuse_several_devices(config)
    return replicas


def device_of(trainer: Any) -> torch.device:
    """The device that a trainer's settings mean."""
    if trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if trainer.accelerator == "mps":
        return torch.device("mps")
    return torch.device("cuda", trainer.devices[0] if isinstance(trainer.devices, list) else 0)


def _replica(entry: Mapping[str, Any]) -> Replica:
    settings = {key: value for key, value in entry.items() if key != "log"}
    return Replica(_name(settings), settings, entry.get("log"))


def _seeds(first: Any, count: int) -> Sequence[int]:
    if count < 1:
        raise UsageError(f"model.method.replicas is {count}, but must be at least 1")
    if isinstance(first, bool):
        raise UsageError("model.method.replicas counts from the run's seed; give --seed_everything a number")
    return range(first, first + count)


def _names(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The full names of settings, also of those inside others."""
    names = [prefix + key for key in settings]
    inner = [(key, value) for key, value in settings.items() if isinstance(value, Mapping)]
    return names + [name for key, value in inner for name in _names(value, f"{prefix}{key}.")]


def _refuse_unfit(replicas: Sequence[Replica]) -> None:
    """Refuse replicas that cannot share a pass, or would share a folder."""
    for replica in replicas:
        if not replica.name:
            raise UsageError("model.method.replicas has an entry without settings; give each something of its own")
        for key in _names(replica.settings):
            if is_shared(key):
                raise UsageError(f"model.method.replicas cannot differ in {key}, which they share; make several runs")
    names = [replica.name for replica in replicas]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two of model.method.replicas are called '{twice[0]}'; let them differ, say in {SEED}")


def _refuse_several_devices(config: Any) -> None:
    if not on_one_device(config.trainer):
        raise UsageError(
            "model.method.replicas train on one device; give --trainer.devices 1, and neither trainer.strategy nor "
            "trainer.num_nodes"
        )
    if config.get("ckpt_path") not in (None, "last", "auto"):
        raise UsageError("each of model.method.replicas goes on from a checkpoint of its own; give --ckpt_path last")


def _name(settings: Mapping[str, Any]) -> str:
    """A folder's name that says what a replica changes: ``seed-43``, ``learning_rate-0.001``."""
    if settings.get("run.name"):
        return str(settings["run.name"])
    last = {key: "seed" if key == SEED else key.rsplit(".", 1)[-1] for key in settings}
    return folder_name(f"{last[key]}-{written(value)}" for key, value in settings.items())
