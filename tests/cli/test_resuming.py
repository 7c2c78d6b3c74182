"""Runs that were interrupted, finished, refused or replaced: nothing is lost, and nothing is mixed up."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from red_lightning.callbacks import read_checkpoint
from tests.cli.commands import FIT, command_line, environment, results, run_apart, write_experiment
from tests.cli.conftest import CLI
from tests.cli.test_kill import bytes_of, writes


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


def test_auto_takes_the_newest_whole_checkpoint(run: Path, cli: CLI) -> None:
    whole = results(run), bytes_of(run)
    (run / "results.json").unlink()
    last, best = run / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt"
    auto = (*FIT, "--run.name", "first", "--ckpt_path", "auto")
    assert "continuing from last.ckpt of first" in cli(*auto).out
    assert (results(run), bytes_of(run)) == whole
    (run / "results.json").unlink()
    last.write_bytes(last.read_bytes()[:-100])
    error = cli(*FIT, "--run.name", "first", "--ckpt_path", "last").error
    assert "last.ckpt' is damaged" in error
    assert "last.ckpt is damaged; continuing from best.ckpt of first" in cli(*auto).out
    assert (results(run), bytes_of(run)) == whole
    (run / "results.json").unlink()
    for file in (last, best):
        file.write_bytes(file.read_bytes()[:-100])
    shown = cli(*auto).out
    assert "is damaged; there is no unfinished run to continue; starting from the beginning" in shown
    assert (results(run), bytes_of(run)) == whole


def test_auto_continues_the_newest_unfinished_run_or_begins_one(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    auto = (*FIT, "--ckpt_path", "auto")
    assert "starting from the beginning" in cli(*auto).out
    (run,) = tmp_path.glob("runs/small-*")
    (run / "results.json").unlink()
    assert f"of {run.name}" in cli(*auto).out
    assert len(list(tmp_path.glob("runs/small-*"))) == 1
    assert "--ckpt_path auto continues a fit; give test best" in cli("test", *auto[1:]).error


def terminated(folder: Path, run: Path, after: int, *args: str) -> str:
    """Send a run SIGTERM when it has written so many checkpoints; what it told on its standard error."""
    enough = writes(after)
    process = subprocess.Popen(
        command_line(*args), cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not enough(run):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143, told
    return told


@pytest.mark.parametrize(
    "processes",
    [(), pytest.param(("--trainer.devices", "2", "--trainer.strategy", "ddp"), marks=pytest.mark.slow)],
    ids=["one process", "two processes"],
)
def test_sigterm_loses_nothing(processes: tuple[str, ...], cli: CLI, tmp_path: Path, gpt2_folder: Path) -> None:
    write_experiment(tmp_path, gpt2_folder, max_epochs=10)
    fit = (*FIT, "--checkpoint.every_n_steps", "1", *processes)
    whole = tmp_path / "runs/whole"
    if processes:
        assert run_apart(tmp_path, *fit, "--run.name", "whole").returncode == 0
    else:
        assert cli(*fit, "--run.name", "whole").status == 0
    run = tmp_path / "runs/stopped"
    told = terminated(tmp_path, run, 3, *fit, "--run.name", "stopped")
    assert f"stopped by SIGTERM ('{run}/checkpoints/last.ckpt' is written)" in told
    assert told.count("stopped by") == 1
    assert "Traceback" not in told
    assert not (run / "results.json").exists()
    assert 3 <= read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] < 60
    done = run_apart(tmp_path, *fit, "--run.name", "stopped", "--ckpt_path", "auto")
    assert done.returncode == 0, done.stderr
    assert results(run) == results(whole)
    assert bytes_of(run) == bytes_of(whole)


def test_sigterm_while_nothing_is_trained_yet(tmp_path: Path, gpt2_folder: Path, experiment: Path) -> None:
    """The run's folder, which appears before the backbone is loaded, is gone again."""
    run = tmp_path / "runs/stopped"
    process = subprocess.Popen(
        command_line(*FIT, "--run.name", "stopped"), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not run.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM; the same command with --ckpt_path auto continues a fit" in told
    assert "Traceback" not in told
    assert not run.exists()
