"""Runs that were interrupted, finished, refused or replaced: nothing is lost, and nothing is mixed up."""

from pathlib import Path

from tests.cli.commands import FIT, results
from tests.cli.conftest import CLI


def test_finished_run_is_refused(run: Path, cli: CLI) -> None:
    before = (run / "results.json").read_bytes()
    assert "holds a finished run" in cli(*FIT, "--run.name", "first").error
    assert "holds a finished run" in cli(*FIT, "--run.name", "first", "--ckpt_path", "last").error
    assert (run / "results.json").read_bytes() == before
    outcome = cli(*FIT, "--run.name", "first", "--run.overwrite", "true", "--trainer.max_epochs", "1")
    assert outcome.status == 0, outcome.err
    assert results(run)["train"]["steps"] == 6
    assert [path.name for path in run.parent.iterdir()] == ["first"]


def test_unfinished_run_is_refused_unless_continued(run: Path, cli: CLI) -> None:
    whole = results(run)
    (run / "results.json").unlink()
    error = cli(*FIT, "--run.name", "first").error
    assert "holds an unfinished run" in error
    assert "--ckpt_path last" in error
    outcome = cli(*FIT, "--run.name", "first", "--ckpt_path", "last")
    assert outcome.status == 0, outcome.err
    assert results(run) == whole


def test_last_without_a_name_continues_the_newest_unfinished_run(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert cli(*FIT).status == 0
    (finished,) = tmp_path.glob("runs/small-*")
    assert cli(*FIT).status == 0
    (unfinished,) = set(tmp_path.glob("runs/small-*")) - {finished}
    (unfinished / "results.json").unlink()
    before = (finished / "results.json").stat().st_mtime_ns
    outcome = cli(*FIT, "--ckpt_path", "last")
    assert outcome.status == 0, outcome.err
    assert results(unfinished) == results(finished)
    assert (finished / "results.json").stat().st_mtime_ns == before
    outcome = cli(*FIT, "--ckpt_path", "last")
    assert "starting from the beginning" in outcome.out
    assert len(list(tmp_path.glob("runs/small-*"))) == 3


def test_a_trial_run_leaves_nothing(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert cli(*FIT, "--trainer.fast_dev_run", "true").status == 0
    assert list(tmp_path.glob("runs/*")) == []


def test_continuing_with_other_settings_is_refused(run: Path, cli: CLI) -> None:
    (run / "results.json").unlink()
    for option, value in (("--model.learning_rate", "0.5"), ("--seed_everything", "8"), ("--data.train_size", "3")):
        error = cli(*FIT, "--run.name", "first", "--ckpt_path", "last", option, value).error
        assert option.removeprefix("--") in error
        assert "was begun with" in error
    assert (run / "checkpoints/last.ckpt").is_file()


def test_continuing_keeps_the_metrics_logged_before(run: Path, cli: CLI) -> None:
    (run / "results.json").unlink()
    logs = sorted(run.glob("logs/**/metrics.csv"))
    before = [file.read_text() for file in logs]
    assert cli(*FIT, "--run.name", "first", "--ckpt_path", "last").status == 0
    assert [file.with_name("metrics-part1.csv").read_text() for file in logs] == before


def test_a_failed_overwrite_brings_the_run_back(run: Path, cli: CLI) -> None:
    kept = results(run)
    overwrite = ("--run.name", "first", "--run.overwrite", "true", "--run.baseline", "true")
    assert "never logs" in cli(*FIT, *overwrite, "--checkpoint.monitor", "foo").error
    assert cli(*FIT, *overwrite, "--model.learning_rate", "1e29").status == 2  # after the baseline
    assert results(run) == kept


def test_a_checkpoint_of_another_run_is_a_start_in_a_new_folder(run: Path, cli: CLI, tmp_path: Path) -> None:
    checkpoint = str(run / "checkpoints/last.ckpt")
    outcome = cli(*FIT, "--run.name", "second", "--ckpt_path", checkpoint)
    assert outcome.status == 0, outcome.err
    assert results(tmp_path / "runs/second")["scores"] is not None


def test_query_and_key_of_one_module_are_other_sites(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert cli(*FIT, "--run.name", "q", "--model.method.sites", "[query]", "--trainer.max_steps", "1").status == 0
    checkpoint = str(tmp_path / "runs/q/checkpoints/last.ckpt")
    test = ("test", "--config", "small.yaml", "--ckpt_path", checkpoint)
    assert "other settings of model.method" in cli(*test, "--model.method.sites", "[key]").error
    assert cli(*test, "--model.method.sites", "[query]").status == 0
