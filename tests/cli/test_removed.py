"""Options of 0.1.0 that were removed: their names get one sentence, and what they wrote does no harm."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from red_lightning.cli.study_plan import files_beside
from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.cells import expand
from red_lightning.studies.study_file import read_study
from tests.cli.commands import FIT, results
from tests.cli.conftest import CLI, Outcome

GONE = (
    "model.method.replicas was removed; make the seeds or settings an axis of a study, and run several of its cells at "
    "once: study run FILE --jobs N"
)
STUDY = """
config: small.yaml
set: {trainer.max_steps: 2}
axes:
  method: {RED: {model.method: RED}}
  seed: {key: seed_everything, values: [7]}
report: {rows: method}
"""


def done(outcome: Outcome) -> Outcome:
    assert outcome.status == 0, outcome.out + outcome.err
    return outcome


def as_of_0_1_0(config: Path, replicas: Any) -> None:
    """Put into a run's ``config.yaml`` what 0.1.0 wrote there: its RED had one option more, the last."""
    text = config.read_text(encoding="utf-8")
    assert text.count("        layers: null\n") == 1
    lines = yaml.safe_dump({"replicas": replicas}).splitlines()
    more = "".join(f"        {line}\n" for line in lines)
    config.write_text(text.replace("        layers: null\n", f"        layers: null\n{more}"), encoding="utf-8")


@pytest.mark.parametrize(
    "options",
    [
        ("--model.method.replicas", "8"),
        ("--model.init_args.method.init_args.replicas=8",),
        ('--model.method.replicas=[{"seed_everything": 1}]',),
        ("--model.method", "RED", "--model.method.replicas", "8"),
        ("--config", "part.yaml"),
    ],
    ids=str,
)
def test_a_command_line_or_config_that_names_replicas(cli: CLI, experiment: Path, options: tuple[str, ...]) -> None:
    experiment.with_name("part.yaml").write_text("model: {method: {class_path: RED, init_args: {replicas: 8}}}")
    assert cli(*FIT, *options).error == GONE
    assert not (experiment.parent / "runs").exists()


def test_studies_that_name_replicas(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY)
    assert cli("study", "run", "mine.yaml", "--together", "2").error.startswith("--together was removed; ")
    assert cli("study", "run", "mine.yaml", "--set", "model.method.replicas=4").error == f"mine.yaml: {GONE}"
    (tmp_path / "mine.yaml").write_text(
        STUDY.replace("model.method: RED", "model.method: RED, model.method.replicas: 4")
    )
    for command in ("run", "status", "report"):
        assert cli("study", command, "mine.yaml").error == f"mine.yaml: {GONE}"
    (tmp_path / "mine.yaml").write_text(
        STUDY.replace("seed_everything, values: [7]", "model.method.replicas, values: [4]")
    )
    assert cli("study", "run", "mine.yaml", "--dry_run").error == f"mine.yaml: {GONE}"
    (tmp_path / "mine.yaml").write_text(STUDY)
    experiment.write_text(experiment.read_text().replace('"sites": [', '"replicas": 4, "sites": ['))
    assert '"replicas"' in experiment.read_text()
    assert GONE in done(cli("study", "run", "mine.yaml", "--dry_run")).out
    (tmp_path / "mine.yaml").write_text(STUDY.replace("model.method: RED", ""))
    assert cli("study", "run", "mine.yaml", "--dry_run").error == f"mine.yaml: {GONE}"
    assert not (tmp_path / "studies").exists()


def test_runs_of_0_1_0_go_on(cli: CLI, experiment: Path, run: Path, tmp_path: Path) -> None:
    """Each run of RED has ``replicas: 1`` in its config: it is repeated, tested and resumed as ever."""
    as_of_0_1_0(run / "config.yaml", 1)
    config, last = str(run / "config.yaml"), run / "checkpoints/last.ckpt"
    done(cli("fit", "--config", config, "--run.name", "again"))
    assert "replicas" not in (tmp_path / "runs/again/config.yaml").read_text()
    assert results(tmp_path / "runs/again") == results(run)
    tested = done(cli("test", "--config", config, "--run.name", "tested", "--ckpt_path", str(last)))
    assert f"checkpoint: {last.relative_to(tmp_path)}" in tested.out
    (run / "results.json").unlink()
    resumed = done(cli("fit", "--config", config, "--run.name", "first", "--ckpt_path", "auto"))
    assert "continuing from last.ckpt of first" in resumed.out


def test_a_folder_of_replicas_is_not_continued_as_one_run(cli: CLI, run: Path, tmp_path: Path) -> None:
    group = tmp_path / "runs/all"
    run.rename(tmp_path / "moved")
    group.mkdir()
    (tmp_path / "moved").rename(group / "seed-7")
    (group / "config.yaml").write_bytes((group / "seed-7/config.yaml").read_bytes())
    as_of_0_1_0(group / "config.yaml", [{"seed_everything": 7}])
    assert cli("fit", "--config", str(group / "config.yaml")).error == GONE
    refused = cli(*FIT, "--run.name", "all", "--ckpt_path", "auto").error
    assert "is the folder of replicas, which were removed; continue each of its runs by itself" in refused
    assert (group / "seed-7/checkpoints/last.ckpt").exists()  # although what is refused leaves no folder


def test_a_study_with_cells_that_ran_together(cli: CLI, run: Path, tmp_path: Path) -> None:
    """The folder of the group is none of the study's; its runs are, and none has become stale."""
    (tmp_path / "mine.yaml").write_text(STUDY)
    study = read_study(tmp_path / "mine.yaml")
    (cell,) = expand(study, files_beside(study.path))
    folder = tmp_path / "studies/mine"
    StudyFolder(folder).claim(study)
    StudyFolder(folder).note(cell, status="done", started=0.0, reason="", seconds=14.0)
    (folder / "runs").mkdir()
    run.rename(folder / "runs/RED-7")
    as_of_0_1_0(folder / "runs/RED-7/config.yaml", 1)
    group = folder / "together/RED-7"
    group.mkdir(parents=True)
    (folder / "together/RED-7.log").write_text("Replicas\n")
    (group / "config.yaml").write_bytes((folder / "runs/RED-7/config.yaml").read_bytes())
    own = {"selection": {"monitor": "val_loss", "mode": "min", "score": None, "step": None}, "scores": {"BLEU": 0.0}}
    found = {"replicas": {"RED-7": {"settings": {"seed_everything": 7}, **own}}, "mean": {"BLEU": 0.0}, "deviation": {}}
    (group / "results.json").write_text(json.dumps(found))
    assert "all done" in done(cli("study", "status", "mine.yaml")).out
    assert "| RED | 128 |" in done(cli("study", "report", "mine.yaml")).out
    assert "1 runs: 1 done" in done(cli("study", "run", "mine.yaml")).out


@pytest.mark.parametrize("suite", ["alpaca_eval", "mt_bench"])
@pytest.mark.parametrize("option", ["backoff", "patience"])
def test_pauses_of_the_judge(cli: CLI, suite: str, option: str) -> None:
    error = cli("evaluate", "--suite", suite, f"--judge.{option}", "3").error
    assert error.startswith(f"--judge.{option} was removed: the package openai sets the pauses")
