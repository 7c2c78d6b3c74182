"""Run replicas: each is a ``fit`` with its own Trainer, in a thread that takes turns with the others."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TextIO

import torch
from lightning import Trainer
from rich.console import Console
from rich.table import Table

from red_lightning.callbacks import Preemption
from red_lightning.cli import report
from red_lightning.cli.launch import launch
from red_lightning.cli.replicas import Replica, device_of
from red_lightning.cli.run_folder import CHOSEN, discard
from red_lightning.errors import UsageError, usage_error_in
from red_lightning.strategies.together import Group, Together
from red_lightning.strategies.turns import StoppedError
from red_lightning.tasks.seeding import SEED


class Belongings:
    """What a process has one of, and each replica needs its own of.

    Standard output, its run in the environment, and the default dtype, which Lightning changes for 16-bit backbones.

    Args:
        outputs: Where each replica prints.
    """

    def __init__(self, outputs: Sequence[TextIO]) -> None:
        self.outputs = outputs
        self.kept: dict[int | None, tuple[dict[str, str], TextIO, torch.dtype]] = {}

    def switch(self, before: int | None, after: int | None) -> None:
        """Put away those of one replica (None: of the command), and take out those of another."""
        own = {name: os.environ.pop(name) for name in (CHOSEN, SEED) if name in os.environ}
        self.kept[before] = own, sys.stdout, torch.get_default_dtype()
        theirs, sys.stdout, dtype = self.kept.get(after) or ({}, self.outputs[after or 0], torch.float32)
        os.environ.update(theirs)
        torch.set_default_dtype(dtype)


class Run:
    """Replicas that run.

    Args:
        cli: The LightningCLI of ``fit``.
        args: The command line, from the command's name on.
        config: Its settings.
        folder: The folder of all.
        replicas: Those to run.
    """

    def __init__(self, cli: Any, args: Sequence[str], config: Any, folder: Path, replicas: Sequence[Replica]) -> None:
        self.cli, self.args, self.config, self.folder, self.replicas = cli, args, config, folder, replicas
        own = [None, *(folder / f"{replica.name}.log" for replica in replicas[1:])]
        self.logs = [Path(replica.log) if replica.log else path for replica, path in zip(replicas, own, strict=True)]
        self.trainers: list[Trainer] = []

    def run(self, preemption: Preemption) -> None:
        """Run them to their ends; what ends the command ends each of them in order.

        Args:
            preemption: Hears the signals of the command.
        """
        with ExitStack() as logs:
            files = [path and logs.enter_context(_log(path)) for path in self.logs]
            outputs = [file or sys.stdout for file in files]
            self.group = Group(len(self.replicas), Belongings(outputs).switch)
            self.group.turns.start([partial(self._fit, member) for member in range(len(self.replicas))])
            with preemption.passing_on() as received:
                try:
                    self.group.turns.wait(lambda: self._end(received() is not None))
                except KeyboardInterrupt:
                    self._end()
                    try:
                        self.group.turns.wait()
                    except KeyboardInterrupt:  # at once, as the second SIGTERM
                        os._exit(130)
                    raise

    def failures(self) -> dict[str, BaseException]:
        """The replicas that failed, and why."""
        ended = self.group.turns.ended
        return {
            replica.name: error
            for member, replica in enumerate(self.replicas)
            if (error := ended[member]) is not None and not isinstance(error, StoppedError)
        }

    @property
    def trained(self) -> bool:
        """Whether any step was taken."""
        return any(trainer.global_step for trainer in self.trainers)

    def _fit(self, member: int) -> None:
        """Run one replica; if it fails before anything was trained, the others end too."""
        trainers, told = self.trainers, self.group.told
        strategy = Together(self.group, member, device_of(self.config.trainer))

        class ReplicaCLI(self.cli):  # type: ignore[name-defined]
            def instantiate_trainer(self, **options: Any) -> Trainer:
                trainer: Trainer = super().instantiate_trainer(**options, strategy=strategy)
                trainers.append(trainer)
                callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
                told.extend(callback.tell for callback in callbacks if isinstance(callback, Preemption))
                return trainer

        try:
            if self.group.ending:
                raise StoppedError(1)
            launch(ReplicaCLI, [*self.args, *self._options(member)])
        except BaseException as error:
            if self.logs[member] and isinstance(error, Exception):
                _complain(error)
            if not self.trained:
                self.group.turns.stop()
            raise

    def _options(self, member: int) -> list[str]:
        replica = self.replicas[member]
        own = {
            "model.method.replicas": "1",
            "run.folder": str(self.folder),
            "run.name": replica.name,
            "run.overwrite": "true" if _overwrites(replica, self.config) else "false",
            **({"run.baseline": "false"} if member else {}),  # the backbone is the same
            **({"trainer.enable_progress_bar": "false"} if member else {}),
            **({"ckpt_path": "auto"} if self.config.get("ckpt_path") else {}),
        }
        return [*(f"--{key}={value}" for key, value in own.items()), *replica.options()]

    def _end(self, now: bool = True) -> None:
        """Let every replica end in order, if it is time."""
        self.group.ending = now


def fit_together(cli: Any, args: Sequence[str], config: Any, folder: Path, replicas: Sequence[Replica]) -> None:
    """Train replicas through one backbone and test each; then say what they have found.

    Args:
        cli: The LightningCLI of ``fit``.
        args: The command line, from the command's name on.
        config: Its settings.
        folder: The folder of all.
        replicas: What to train; those that are finished in the folder already are left alone.

    Raises:
        UsageError: A replica was refused before anything was trained, or some have failed later.
    """
    left = [replica for replica in replicas if _is_left(folder, replica) or _overwrites(replica, config)]
    preemption = next(each for each in cli.trainer_defaults["callbacks"] if isinstance(each, Preemption))
    failures: Mapping[str, BaseException] = {}
    if left:
        names = ", ".join(replica.name for replica in left)
        others = "; all but the first write to NAME.log there" if len(left) > 1 and not left[0].log else ""
        print(f"{len(left)} replicas at once in {folder.name}: {names}{others}", flush=True)
        together = Run(type(cli), args, config, folder, left)
        together.run(preemption)
        failures = together.failures()
        if failures and not together.trained:
            _raise_first(failures)
    if config.trainer.fast_dev_run:
        discard()
        return
    _summarize(folder, replicas)
    if failures:
        _raise_first(failures, f"{len(failures)} of {len(replicas)} replicas failed, first ")


def _complain(error: Exception) -> None:
    """Print why a replica failed where it prints, as the command would."""
    sentence = usage_error_in(error)
    if sentence is None:
        traceback.print_exception(error, file=sys.stdout)
    print(f"error: {sentence or ' '.join(traceback.format_exception_only(error)[-1].split())}")


def _raise_first(failures: Mapping[str, BaseException], said: str = "") -> None:
    """Raise what one of the replicas has raised, with its name."""
    name, error = next(iter(failures.items()))
    sentence = usage_error_in(error)
    if sentence is None:
        raise error
    raise UsageError(f"{said}replica {name}: {sentence}") from error


def _is_left(folder: Path, replica: Replica) -> bool:
    """Whether a replica is still to be run."""
    return not (_folder(folder, replica) / "results.json").exists()


def _overwrites(replica: Replica, config: Any) -> bool:
    """Whether a finished replica is replaced, in a folder that is not inside the command's."""
    elsewhere = "run.folder" in replica.settings and config.run.overwrite
    return bool(replica.settings.get("run.overwrite", elsewhere))


def _log(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", 1, encoding="utf-8")


def _folder(folder: Path, replica: Replica) -> Path:
    return Path(replica.settings.get("run.folder", folder), replica.name)


def _summarize(folder: Path, replicas: Sequence[Replica]) -> None:
    """Print the results of all, their means and standard deviations; write them, once all are there."""
    results = {replica.name: _folder(folder, replica) / "results.json" for replica in replicas}
    found = {name: report.read_json(path) for name, path in results.items() if path.exists()}
    scores = {name: _scores(result) for name, result in found.items()}
    every = list(dict.fromkeys(key for own in scores.values() for key in own))
    known = {key: [value for own in scores.values() if (value := own.get(key)) is not None] for key in every}
    means = {key: mean(values) for key, values in known.items() if values}
    deviations = {key: stdev(values) for key, values in known.items() if len(values) > 1}
    settings = {replica.name: replica.settings for replica in replicas}
    content = {
        name: {"settings": settings[name], "selection": found[name]["selection"], "scores": scores[name]}
        for name in found
    }
    if len(found) == len(replicas):
        report.write_json(folder / "results.json", {"replicas": content, "mean": means, "deviation": deviations})
    table = Table("replica", *every, title="Replicas", title_justify="left")
    for name, own in scores.items():
        table.add_row(name, *_shown(own, every))
    table.add_section()
    table.add_row("mean", *_shown(means, every))
    table.add_row("standard deviation", *_shown(deviations, every))
    Console().print(table)
    if len(found) == len(replicas) and every:
        print(f"results: {report.shown(folder / 'results.json')}; the edits of each are in its folder", flush=True)


def _scores(result: Mapping[str, Any]) -> dict[str, float | None]:
    """What a replica was chosen by, and its test scores."""
    selection = result["selection"]
    return {selection["monitor"]: selection["score"], **result["scores"]} if "scores" in result else {}


def _shown(values: Mapping[str, float | None], keys: Sequence[str]) -> list[str]:
    return [f"{value:.4f}" if (value := values.get(key)) is not None else "-" for key in keys]
