"""``study`` through the command line: run, resume, status and report, on a tiny backbone and tiny data."""

import csv
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from red_lightning.cli.study_plan import files_beside
from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.cells import expand
from red_lightning.studies.locks import owner_of
from red_lightning.studies.setting_selection import trials
from red_lightning.studies.study_file import read_study
from tests.backbones_zoo import save_backbone
from tests.cli.commands import environment, run_apart, write_classifier
from tests.cli.conftest import CLI, Outcome
from tests.studies.study_files import finish

STUDY = """
title: My texts
config: texts.yaml
set: {trainer.max_epochs: 1}
axes:
  method:
    RED: {model.method: RED}
    FT: {model.method: FullFineTuning, model.learning_rate: 1e-4}
  seed: {key: seed_everything, values: [42]}
report: {rows: method, against: RED}
"""
SELECT = "select: {on: validation, over: model.learning_rate, values: [1e-3, 1e-2], budget: 2, seed: 42}\n"
VECTORS = 2 * 2 * 32


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone("roberta", tmp_path_factory.mktemp("backbones") / "roberta")


@pytest.fixture
def study(tmp_path: Path, roberta_folder: Path) -> Path:
    """A study called ``mine.yaml`` of an experiment called ``texts.yaml``."""
    write_classifier(tmp_path, roberta_folder)
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    return path


def commands(shown: Outcome) -> list[list[str]]:
    """The commands that a dry run lists."""
    assert shown.status == 0, shown.err
    return [shlex.split(line) for line in shown.out.splitlines() if line.startswith("python ")]


def test_a_dry_run_lists_commands_and_parameters(cli: CLI, study: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    shown = cli("study", "run", "mine.yaml", "--dry_run", "--set", "data.train_size=12", "model.lr_x=[1, a]")
    assert "# RED-42: waiting, trains ? parameters" in shown.out
    assert "# not counted: model has no option 'lr_x'" in shown.out
    shown = cli("study", "run", "mine.yaml", "--dry_run", "--set", "data.train_size=12")
    assert f"# RED-42: waiting, trains {VECTORS} parameters" in shown.out
    assert re.search(r"# FT-42: waiting, trains \d\d,\d\d\d parameters", shown.out)
    assert shown.out.rstrip().endswith("2 runs")
    red, full = commands(shown)
    assert red[:6] == ["python", "-m", "red_lightning", "fit", "--config=texts.yaml", "--seed_everything=42"]
    assert {"--trainer.max_epochs=1", "--model.method=RED", "--data.train_size=12", "--run.name=RED-42"} <= {*red}
    assert {"--model.method=FullFineTuning", "--model.learning_rate=0.0001", "--run.folder=studies/mine/runs"} <= {
        *full
    }
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_goes_on_where_the_backbone_cannot_be_reached(study: Path, tmp_path: Path) -> None:
    backbone = "model.backbone=nobody/nothing-at-all"
    offline = environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    shown = run_apart(tmp_path, "study", "run", "mine.yaml", "--dry_run", "--set", backbone, env=offline)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("trains ? parameters") == 2
    assert "# not counted: " in shown.stdout
    assert "nobody/nothing-at-all" in shown.stdout.split("# not counted: ")[1]


def test_a_dry_run_shows_what_is_still_to_be_chosen(cli: CLI, study: Path) -> None:
    study.write_text(STUDY + SELECT)
    shown = cli("study", "run", "mine.yaml", "--dry_run", "--only", "method=RED")
    assert shown.out.rstrip().endswith("2 runs choose, 1 are tested")
    *tried, chosen = commands(shown)
    assert ["--run.test=false" in command for command in tried] == [True, True]
    assert "--model.learning_rate=CHOSEN" in chosen
    assert "--run.test=false" not in chosen


def test_a_study_runs_resumes_and_reports(cli: CLI, study: Path, tmp_path: Path) -> None:
    """Each run is a process of its own."""
    study.write_text(STUDY.replace("FullFineTuning", "FullFineTunin"))
    shown = cli("study", "run", "mine.yaml", "--jobs", "2")
    assert "1 of 2 runs failed; the same command tries them again" in shown.error
    assert "RED-42: done in" in shown.out
    assert "failed: FT-42: unknown method 'FullFineTunin': did you mean 'FullFineTuning'?" in shown.out
    before = (tmp_path / "studies/mine/runs/RED-42/results.json").read_bytes()
    study.write_text(STUDY)
    shown = cli("study", "run", "mine.yaml")
    assert shown.status == 0, shown.err
    assert "2 runs: 1 done, 1 stale" in shown.out
    assert "[1/1] FT-42: done in" in shown.out
    assert (tmp_path / "studies/mine/runs/RED-42/results.json").read_bytes() == before
    assert "all done" in cli("study", "status", "mine.yaml").out
    shown = cli("study", "report", "mine.yaml")
    assert shown.status == 0, shown.err
    assert "# My texts" in shown.out
    assert f"| RED | {VECTORS} |" in shown.out
    report = tmp_path / "studies/mine/report"
    assert {path.name for path in report.iterdir()} == {"table.md", "table.csv", "table.tex", "scores.png"}
    scores = json.loads(before)["scores"]
    with (report / "table.csv").open(encoding="utf-8") as file:
        rows = {(row["method"], row["column"]): row for row in csv.DictReader(file)}
    table = (report / "table.md").read_bytes()
    shown = cli("study", "report", "mine.yaml", "--only", "method=RED")
    assert "not written: these are some cells of the study alone" in shown.out
    assert (report / "table.md").read_bytes() == table
    for metric, score in scores.items():
        assert float(rows["RED", metric]["mean"]) == pytest.approx(100 * score)


def test_status_counts_and_names_failures(cli: CLI, study: Path, tmp_path: Path) -> None:
    shown = cli("study", "status", "mine.yaml")
    assert "2 runs to go" in shown.out
    assert cli("study", "report", "mine.yaml").out.count("missing (0 of 1)") == 2
    assert not (tmp_path / "studies/mine/study.json").exists()


def test_runs_that_never_validated_choose_nothing(cli: CLI, study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY + SELECT)
    content, files, folder = read_study(study), files_beside(study), StudyFolder(tmp_path / "studies/mine")
    folder.claim(content)
    cells = [cell for cell in expand(content, files) if cell.labels["method"] == "RED"]
    for cell in trials(content, cells, files):
        finish(folder, cell, selection={"monitor": "val_score", "mode": "max", "score": None, "step": None})
    ended = cli("study", "run", "mine.yaml", "--only", "method=RED")
    assert "nothing could be chosen for RED: no run has a validation score" in ended.out
    assert (ended.status, ended.err.strip()) == (
        2,
        "error: not every run that chooses has validated; let them train longer, or validate more often",
    )


def test_a_run_without_its_test_leaves_the_test_split_alone(cli: CLI, study: Path, tmp_path: Path) -> None:
    options = ("--run.test", "false", "--run.baseline", "true", "--trainer.max_epochs", "1", "--run.name", "x")
    shown = cli("fit", "--config", "texts.yaml", *options)
    assert shown.status == 0, shown.err
    assert "best val_score: " in shown.out
    assert "testing" not in shown.out
    run = tmp_path / "runs/x"
    written = json.loads((run / "results.json").read_text())
    assert written["scores"] == {}
    assert 0 <= written["selection"]["score"] <= 1
    assert {path.name for path in run.iterdir()} == {"config.yaml", "results.json", "checkpoints", "edits"}


def test_a_named_method_starts_from_its_own_defaults(cli: CLI, study: Path) -> None:
    """RED's sites in the config are not LoRA's."""
    shown = cli("fit", "--config", "texts.yaml", "--model.method", "LoRA", "--model.method.rank=2", "--print_config")
    assert re.search(r"sites:\s+- query\s+- value", shown.out), shown.out
    assert "rank: 2" in shown.out
    assert "vectors" not in shown.out
    shown = cli("fit", "--config", "texts.yaml", "--model.method=methods/ia3.yaml", "--print_config")
    assert re.search(r"sites:\s+- key\s+- value\s+- ffn", shown.out), shown.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "min.yaml"], "the study 'min.yaml' is neither a file nor one that ships"),
        (["run", "tabel1"], "did you mean 'table1'?"),
        (["run", "texts.yaml"], "is not a study file: it has no axes"),
        (["run", "mine.yaml", "--only", "metod=RED"], "no axis 'metod': did you mean 'method'?"),
        (["run", "mine.yaml", "--only", "method=RAD"], "has no 'RAD': did you mean 'RED'?"),
        (["run", "mine.yaml", "--only", "RED"], "--only takes AXIS=LABEL,LABEL, not 'RED'"),
        (["run", "mine.yaml", "--set", "x"], "--set takes KEY=VALUE, not 'x'"),
        (["run", "mine.yaml", "--jobs", "0"], "--jobs is 0, but must be at least 1"),
        (["run", "mine.yaml", "--dry_rum"], "unknown option '--dry_rum': did you mean '--dry_run'?"),
        (["run", "mine.yaml", "--folder", "taken"], "holds something that is no study; choose another --folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_a_sentence(args: list[str], said: str, cli: CLI, study: Path, tmp_path: Path) -> None:
    (tmp_path / "taken/mine/x").mkdir(parents=True)
    assert said in cli("study", *args).error
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
def test_a_setting_is_chosen_and_two_commands_share_the_work(study: Path, tmp_path: Path) -> None:
    import subprocess

    study.write_text(
        STUDY.replace("values: [42]", "values: [42, 43]").replace(", model.learning_rate: 1e-4", "") + SELECT
    )
    command = [sys.executable, "-m", "red_lightning", "study", "run", "mine.yaml", "--jobs", "2"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) for _ in "ab"]
    assert all("Traceback" not in process.communicate(timeout=900)[0] for process in both)
    done = run_apart(tmp_path, "study", "run", "mine.yaml")  # what one of them left to the other is done by now
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "studies/mine/runs"
    assert len(list(runs.glob("*/results.json"))) == 2 * 2 + 2 * 2
    assert not any(owner_of(path) for path in (tmp_path / "studies/mine/cells").glob("*.lock"))
    for method in ("RED", "FT"):
        tried = {value: runs / f"{method}-42-learning_rate={value}" for value in (0.001, 0.01)}
        assert not any((path / "test_predictions.jsonl").exists() for path in tried.values())
        scores = {v: json.loads((p / "results.json").read_text())["selection"]["score"] for v, p in tried.items()}
        best = max(scores, key=lambda value: scores[value])
        config = (runs / f"{method}-43/config.yaml").read_text()
        assert f"learning_rate: {best}" in config
    report = run_apart(tmp_path, "study", "report", "mine.yaml")
    assert "## Chosen on the validation split" in report.stdout
    assert "(seed 42), none of which was tested" in report.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_goes_on(number: signal.Signals, study: Path, tmp_path: Path) -> None:
    import subprocess
    import time

    study.write_text(STUDY.replace("max_epochs: 1", "max_epochs: 400"))
    command = [sys.executable, "-m", "red_lightning", "study", "run", "mine.yaml", "--only", "method=RED"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    last = tmp_path / "studies/mine/runs/RED-42/checkpoints/last.ckpt"
    for _ in range(600):
        if last.exists():
            break
        time.sleep(0.5)
    os.kill(process.pid, number)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not (last.parents[1] / "results.json").exists()
    assert not any(owner_of(path) for path in (tmp_path / "studies/mine/cells").glob("*.lock"))
    done = run_apart(tmp_path, *command[3:])
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "studies/mine/cells/RED-42.log").read_text()
    assert "continuing from last.ckpt of RED-42" in log
