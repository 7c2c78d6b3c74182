"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI with a run folder, and a result at the end."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import OmegaConfBaseException

from red_lightning.backbones.sharding import full_parameters
from red_lightning.callbacks import (
    BestCheckpoint,
    FiniteSteps,
    PredictionWriter,
    read_checkpoint,
)
from red_lightning.cli.launch import launch
from red_lightning.cli.missing_extras import report_missing
from red_lightning.errors import UsageError
from red_lightning.evaluation import checkpoint_selection
from red_lightning.paper.hyperparameters import unresolved
from red_lightning.runs import display, folder, results, resuming
from red_lightning.runs.display import shown
from red_lightning.strategies.allocation import keep_freed_memory
from red_lightning.tasks.backbone_task import RECORD

EPILOG = """The options of a task, a data module or a method have a help of their own:
--model.help DataToText, --data.help E2E, --model.method.help RED (behind a --config that sets them)."""


class RedCLI(LightningCLI):
    """LightningCLI in which one experiment is one YAML file, and ``fit`` ends with its result."""

    run_path: Path
    parsers: list[LightningArgumentParser]  # one for each command, in the order of `subcommands`
    given_checkpoint: str | None  # the value of `--ckpt_path`
    config_file: str | None = None
    """The last ``--config`` of the command line."""
    began: dict[str, Any] | None = None
    """How the run that is resumed chose its best checkpoint."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the groups ``checkpoint``, ``finite_steps`` and ``run``."""
        self.parsers = [*getattr(self, "parsers", []), parser]
        parser.epilog = EPILOG
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(FiniteSteps, "finite_steps")
        parser.add_argument("--run", type=folder.Run, default=folder.Run(), help="Where the run writes.")

    @property
    def command_parser(self) -> LightningArgumentParser:
        """The parser of the command that runs."""
        return self.parsers[list(self.subcommands()).index(str(self.config.subcommand))]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without LightningCLI's warning that the arguments came from a list.

        The checkpoint is held back: LightningCLI would read it here, and let the settings stored in it win.
        """
        try:
            self.config = parser.parse_args(args)
        except OmegaConfBaseException as error:
            raise unresolved(error) from error
        command = self.config[self.config.subcommand]
        self.given_checkpoint, command["ckpt_path"] = command.get("ckpt_path"), None

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and the checkpoint before anything is loaded."""
        config = self.config[self.subcommand]
        given = config["ckpt_path"] = self.given_checkpoint
        settings = folder.Run(**config.run.as_dict() if hasattr(config.run, "as_dict") else vars(config.run))
        experiment = self._experiment(config)
        resume = resuming.way(given, self.subcommand)
        label = experiment if self.subcommand == "fit" else f"{experiment}-{self.subcommand}"
        self.run_path = folder.choose(settings, label, resume)
        self.settings = settings
        text = self._dump(config)  # before this run's own paths are in it
        self.checkpoints = Path(config.checkpoint.folder or self.run_path / "checkpoints")
        config["ckpt_path"] = self._checkpoint(given, experiment, text)
        config.trainer.default_root_dir = str(self.run_path)
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if "save_dir" in (getattr(logger, "init_args", None) or {}):  # loggers write inside the run's folder
                logger.init_args.save_dir = str(self.run_path / (logger.init_args.save_dir or ""))
        if folder.is_first_process():
            if resume:
                resuming.refuse_changes(self.run_path, text, self._reread)
                resuming.keep_logs(self.run_path)
            (self.run_path / "config.yaml").write_text(text, encoding="utf-8")

    def _dump(self, config: Any) -> str:
        """The settings, so that they run again as they are, in a folder of their own."""
        again = config.clone()
        again.run.name, again.run.overwrite, again["ckpt_path"] = None, False, None
        return self.command_parser.dump(again, skip_unset=False)

    def _reread(self, text: str) -> str:
        """A run's config.yaml as this version writes it."""
        return self._dump(self.command_parser.parse_string(text))

    def instantiate_classes(self) -> None:
        """Build everything; the task learns from the checkpoint what it was trained for."""
        super().instantiate_classes()
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        if checkpoint is not None:
            self.model.recall(read_checkpoint(checkpoint).get(RECORD, {}))

    def before_fit(self) -> None:
        """Say what runs; test the unedited backbone if asked."""
        config = self.config[self.subcommand]
        checkpoint_selection.refuse_unfit(config.checkpoint, self.model, bool(config.trainer.callbacks))
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        _say(f"run folder: {shown(self.run_path)}")
        checkpoint_selection.settle(self.trainer, self.began)
        if self.settings.test:
            report_missing(self.model)
        if self.settings.baseline and self.settings.test and not (self.run_path / "baseline.json").exists():
            _say(f"testing the {self.model.unedited} ...")
            scores = self._test(None, "baseline_predictions.jsonl")
            if folder.is_first_process():
                display.write_json(self.run_path / "baseline.json", scores)
        self.started = time.monotonic()

    def after_fit(self) -> None:
        """Test the best checkpoint if asked, write ``edits/`` and ``results.json``, and print the result."""
        if self.trainer.interrupted:
            return
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder.discard()
            return
        keeper = next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint))
        train = results.of_training(self.trainer, time.monotonic() - self.started)
        seed = self.config[self.subcommand].seed_everything
        about = {"selection": keeper.selection(), "train": train, "seed": seed}
        best = keeper.chosen_path
        tested, scores = self.settings.test, {}
        if tested:
            _say(f"testing {shown(best)} ...")
            scores = self._test(str(best), "test_predictions.jsonl")
        # the model has the best parameters only after a test; gathering takes all processes, where they are sharded
        learned = full_parameters(self.model) if tested else read_checkpoint(best)["state_dict"]
        if folder.is_first_process():
            found = results.of_run(self.run_path, self.model, self.datamodule, scores) | about
            results.save_edits_of(self.run_path / "edits", self.model.in_original_units(learned), found)
            display.write_json(self.run_path / "results.json", found)
            if tested:
                display.print_result(self.run_path, found, self._beside(), self.settings.samples)
            else:
                _say(f"best {keeper.monitor}: {keeper.best_score}")
            checkpoint_selection.report(about["selection"])
            _say(f"results: {shown(self.run_path / 'results.json')}    edits: {shown(self.run_path / 'edits')}/")

    def _beside(self) -> dict[str, dict[str, float]]:
        """The scores to show beside the run's own: none if they are for other data."""
        wanted, used = self.settings.beside_data, type(self.datamodule).__name__
        if not self.settings.beside or wanted in (None, used):
            return self.settings.beside
        _say(f"note: run.beside has scores for {wanted}, but this run used {used}; they are not shown")
        return {}

    def test(self, **options: Any) -> None:
        """Run the test without Lightning's table beside ours."""
        self._say_checkpoint(options)
        self.trainer.test(**{**options, "verbose": False})

    def validate(self, **options: Any) -> None:
        """Run the validation without Lightning's table beside ours."""
        self._say_checkpoint(options)
        self.trainer.validate(**{**options, "verbose": False})

    def predict(self, **options: Any) -> None:
        """Run the prediction."""
        if self.model.unedited == "untrained head" and not options.get("ckpt_path"):
            raise UsageError("predict would use an untrained head; give --ckpt_path")
        self._say_checkpoint(options)
        self.trainer.predict(**{**options, "return_predictions": False})

    def _say_checkpoint(self, options: dict[str, Any]) -> None:
        path = options.get("ckpt_path")
        untrained = f"no --ckpt_path is given: this is the {self.model.unedited}"
        _say(f"checkpoint: {shown(Path(path))}" if path else untrained)

    def _scores(self) -> dict[str, float | None]:
        """The test scores in the task's order; None where a metric could not be measured."""
        logged = {name.removeprefix("test_"): float(value) for name, value in self.trainer.callback_metrics.items()}
        return {name: logged.get(name) for name in self.model.metric_names}

    def before_test(self) -> None:
        """Say what cannot be measured."""
        report_missing(self.model)

    def after_test(self) -> None:
        """Print the scores."""
        if folder.is_first_process():
            scores = self._scores()
            details = self.model.details
            display.write_json(self.run_path / "results.json", {"scores": scores, **details, **self.model.record()})
            display.print_scores({"score": scores}, self.model.missing_metrics)
            display.print_details(self.run_path, details)
            _say(f"predictions: {shown(self.run_path / 'test_predictions.jsonl')}")

    def after_validate(self) -> None:
        """Print the metrics."""
        scores = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if folder.is_first_process():
            display.write_json(self.run_path / "results.json", {"scores": scores, **self.model.record()})
            display.print_scores({"score": scores}, {}, title="Metrics on the validation split")

    def after_predict(self) -> None:
        """Say where the predictions are."""
        if folder.is_first_process():
            display.write_json(self.run_path / "results.json", self.model.record())
        _say(f"predictions: {shown(self.run_path / 'predictions.jsonl')}")

    def _test(self, checkpoint: str | None, file: str) -> dict[str, float | None]:
        writer = next(c for c in self.trainer.callbacks if isinstance(c, PredictionWriter))  # type: ignore[attr-defined]
        writer.test_file = file
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=checkpoint, verbose=False)
        return self._scores()

    def _experiment(self, config: Any) -> str:
        """What a run is called: the config file's name or the task's, and the data set's task where it has several."""
        name = Path(self.config_file).stem if self.config_file else str(config.model.class_path).rsplit(".", 1)[-1]
        task = (config.data.get("init_args") or {}).get("task")
        return f"{name}-{task}" if task else name

    def _checkpoint(self, given: str | None, experiment: str, text: str) -> str | None:
        """The file that ``--ckpt_path`` means: one of this run's folder, ``best`` of the newest run, or a path."""
        if way := resuming.way(given, self.subcommand):
            path, told, self.began = resuming.checkpoint_of(self.run_path, way, self.checkpoints)
            _say(told)
            return str(path) if path else None
        if given == "best":
            fits = partial(resuming.other_data, text=text)
            best = folder.newest_best(Path(self.settings.folder), experiment, fits)
            if best is None:
                raise UsageError("there is no run with a best checkpoint yet; give --ckpt_path the path of one")
            given = str(best)
        if given is not None:
            read_checkpoint(given)
        return given


def main(args: Sequence[str]) -> None:
    """Run one of the training commands.

    Args:
        args: The command line, from the command's name on.
    """
    launch(RedCLI, args)


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
