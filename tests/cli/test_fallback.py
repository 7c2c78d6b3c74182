"""A run whose checkpoint is to be chosen by a benchmark, where that can be scored and where not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from red_lightning.adapters import read_edits
from red_lightning.adapters.file_format import site_name
from red_lightning.callbacks import read_checkpoint
from red_lightning.evaluation import TaskScore, task_score
from red_lightning.evaluation.leaderboard import UnavailableError
from tests.cli.commands import FIT, environment, results, run_apart, write_classifier
from tests.cli.conftest import CLI

CHECKPOINT = {"monitor": "val_truthfulqa", "mode": "max", "fallback": {"monitor": "val_loss", "mode": "min"}}
MISSING = "lm-eval is not installed"
INSTALL = "install it with pip install 'red-lightning[evaluation]'"

BLOCKED = """
from importlib.machinery import PathFinder

EXTRAS = ("lm_eval", "alpaca_eval", "openai", "pycocoevalcap")
found = PathFinder.find_spec

def find_spec(name, *rest):
    return None if name.partition(".")[0] in EXTRAS else found(name, *rest)

PathFinder.find_spec = staticmethod(find_spec)
"""
"""A sitecustomize.py that hides packages of the extras."""


class Scores:
    """Stands in for lm-eval: whether it is there, and what it gives."""

    def __init__(self) -> None:
        self.missing = False
        self.given: Iterator[float] = iter([])
        self.asked = 0

    def load(self, *_: Any) -> dict[str, Any]:
        if self.missing:
            raise UnavailableError(MISSING, INSTALL)
        return {"tasks": {}}

    def score(self, *_: Any) -> dict[str, float]:
        self.asked += 1
        return {"val_truthfulqa": next(self.given)}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Scores:
    stub = Scores()
    monkeypatch.setattr(task_score, "load_tasks", stub.load)
    monkeypatch.setattr(TaskScore, "_score", lambda self, *_: stub.score())
    return stub


@pytest.fixture
def chosen(experiment: Path) -> Path:
    """The small experiment, its checkpoint chosen by TruthfulQA."""
    config = json.loads(experiment.read_text())
    config["checkpoint"] = CHECKPOINT
    config["trainer"] |= {"callbacks": [{"class_path": "TaskScore"}], "max_epochs": 3}
    experiment.write_text(json.dumps(config))
    return experiment


def selected(run: Path) -> dict[str, Any]:
    """What results.json says of the choice."""
    return results(run)["selection"]


def test_where_it_can_be_scored_it_chooses(cli: CLI, chosen: Path, scores: Scores, tmp_path: Path) -> None:
    scores.given = iter([0.0, 0.125, 0.75, 0.25])  # the first is asked before training
    done = cli(*FIT, "--run.name", "x")
    assert done.status == 0, done.err
    selection = selected(tmp_path / "runs/x")
    assert (selection["score"], selection["reason"]) == (0.75, None)
    assert selection["monitor"] == selection["wanted"] == "val_truthfulqa"
    assert "note: the best checkpoint" not in done.out


def test_where_it_cannot_the_loss_chooses(cli: CLI, chosen: Path, scores: Scores, tmp_path: Path) -> None:
    scores.missing = True
    done = cli(*FIT, "--run.name", "x", "--run.baseline", "true")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    before = (
        f"note: {MISSING}, so the best checkpoint is chosen by val_loss (min) instead of val_truthfulqa (max); "
        f"to choose by val_truthfulqa, {INSTALL}"
    )
    after = f"note: the best checkpoint was chosen by val_loss instead of val_truthfulqa, because {MISSING}"
    assert lines.count(before) == lines.count(after) == 1
    start = next(index for index, line in enumerate(lines) if line.startswith("testing the "))  # the first to load
    assert lines.index(before) < start < lines.index(after)
    selection = selected(tmp_path / "runs/x")
    best = read_checkpoint(tmp_path / "runs/x/checkpoints/best.ckpt")
    assert selection["step"] == best["global_step"] and selection["score"] is not None
    assert {key: selection[key] for key in ("monitor", "mode", "wanted", "reason")} == {
        "monitor": "val_loss", "mode": "min", "wanted": "val_truthfulqa", "reason": MISSING
    }  # fmt: skip
    # the same run as one that asks for the loss
    plain = cli(*FIT, "--run.name", "y", "--checkpoint.monitor", "val_loss", "--checkpoint.mode", "min")
    assert f"TaskScore: truthfulqa is not scored, for {MISSING}" in plain.out
    other = read_checkpoint(tmp_path / "runs/y/checkpoints/best.ckpt")
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in best["state_dict"].items())
    assert selected(tmp_path / "runs/y")["score"] == selection["score"] and scores.asked == 0
    untested = cli(*FIT, "--run.name", "z", "--run.test", "false")
    assert untested.out.splitlines()[-2:] == [after, "results: runs/z/results.json    edits: runs/z/edits/"]
    tensors, record = read_edits(tmp_path / "runs/z/edits")
    untested_best = read_checkpoint(tmp_path / "runs/z/checkpoints/best.ckpt")["state_dict"]
    assert all(
        torch.equal(tensors[site_name(name.removeprefix("backbone."))], value) for name, value in untested_best.items()
    )
    assert record["scores"] == {}


def test_without_a_fallback_it_is_refused(cli: CLI, chosen: Path, scores: Scores, tmp_path: Path) -> None:
    scores.missing = True
    error = cli(*FIT, "--checkpoint.fallback", "null").error
    assert error == (
        f"the checkpoint is chosen by val_truthfulqa, but {MISSING}; {INSTALL}, or choose by another metric, as with "
        "--checkpoint.monitor val_loss --checkpoint.mode min"
    )
    assert list(tmp_path.glob("runs/*")) == []
    wrong = cli(*FIT, "--checkpoint.fallback.mode", "max").error
    assert wrong.endswith("val_loss is best when smallest; give --checkpoint.fallback.mode min")
    assert (
        "checkpoint.fallback.monitor is 'val_los', which" in cli(*FIT, "--checkpoint.fallback.monitor", "val_los").error
    )


def interrupted(run: Path) -> Path:
    """The run as it was before its end."""
    (run / "results.json").unlink()
    return run


def test_a_resumed_run_keeps_the_loss(cli: CLI, chosen: Path, scores: Scores, tmp_path: Path) -> None:
    scores.missing = True
    resume = (*FIT, "--run.name", "x", "--trainer.max_epochs")
    assert cli(*resume, "1").status == 0
    before = selected(tmp_path / "runs/x")
    interrupted(tmp_path / "runs/x")
    scores.missing = False
    done = cli(*resume, "2", "--ckpt_path", "auto")
    assert done.status == 0, done.err
    assert done.out.count("note: val_truthfulqa can be measured now, but this run began to choose") == 1
    after = selected(tmp_path / "runs/x")
    assert (after["monitor"], after["reason"], scores.asked) == ("val_loss", MISSING, 0)
    assert after["score"] <= before["score"]


def test_a_resumed_run_keeps_the_benchmark(cli: CLI, chosen: Path, scores: Scores, tmp_path: Path) -> None:
    scores.given = iter([0.0, 0.125, 0.75, 0.25])
    resume = (*FIT, "--run.name", "x", "--trainer.max_epochs")
    assert cli(*resume, "2").status == 0
    interrupted(tmp_path / "runs/x")
    scores.missing = True
    error = cli(*resume, "3", "--ckpt_path", "last").error
    assert error.startswith("this run began to choose its best checkpoint by val_truthfulqa and cannot change")
    assert MISSING in error and "or start a new run" in error
    scores.missing = False
    assert cli(*resume, "3", "--ckpt_path", "last").status == 0
    assert selected(tmp_path / "runs/x")["score"] == 0.75
    interrupted(tmp_path / "runs/x")
    other = ("--checkpoint.monitor", "val_loss", "--checkpoint.mode", "min")
    scores.given = iter([0.5])
    changed = cli(*resume, "4", "--ckpt_path", "last", *other)
    assert "chose its best checkpoint by val_truthfulqa so far; from now on val_loss chooses" in changed.out


def test_what_one_process_cannot_score_none_scores(
    cli: CLI, chosen: Path, scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.strategies import SingleDeviceStrategy

    real = SingleDeviceStrategy.reduce_boolean_decision
    answers = iter([False])  # of another process
    monkeypatch.setattr(
        SingleDeviceStrategy,
        "reduce_boolean_decision",
        lambda self, decision, all=True: next(answers, None) is None and real(self, decision, all),
    )
    done = cli(*FIT, "--run.name", "x")
    assert done.status == 0, done.err
    assert done.out.count("note: another process cannot score truthfulqa, so the best checkpoint is chosen by") == 1
    assert selected(tmp_path / "runs/x")["monitor"] == "val_loss" and scores.asked == 0


@pytest.fixture
def base_install(tmp_path: Path) -> dict[str, str]:
    """The environment of a process for which the extras are not installed."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(BLOCKED)
    mine = environment()
    return environment(PYTHONPATH=f"{tmp_path / 'blocked'}:{mine['PYTHONPATH']}", HF_HUB_OFFLINE="1")


SHORT = (
    "--trainer.max_steps=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--data.global_batch_size=4",
    "--data.eval_batch_size=2",
    "--data.max_length=64",
    "--model.decoding.max_new_tokens=4",
)


def write_chats(folder: Path, count: int = 12) -> Path:
    """A folder laid out as UltraFeedback is on the hub."""
    for split in ("train_sft", "test_sft"):
        lines = []
        for index in range(count):
            said = [
                {"role": "user", "content": f"What is {index}?"},
                {"role": "assistant", "content": f"It is {index}."},
            ]
            lines.append(json.dumps({"prompt": f"What is {index}?", "chosen": said}))
        folder.mkdir(exist_ok=True)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("train_sft", "test_sft")]
    header = {"configs": [{"config_name": "default", "data_files": files}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(header)}\n---\n")
    return folder


def main_line(llama: Path, folder: Path, *options: str) -> list[str]:
    """The paper's instruction tuning on a tiny Llama and a few rows."""
    path = write_chats(folder / "chats")
    local = [
        f"--model.backbone={llama}",
        f"--data.path={path}",
        "--data.validation_size=4",
        "--trainer.accelerator=cpu",
    ]
    return ["--config", "llama2_ultrafeedback", *local, *SHORT, *options]


def test_the_main_line_runs_on_a_base_install(llama_folder: Path, base_install: dict[str, str], tmp_path: Path) -> None:
    env = {**base_install, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = run_apart(tmp_path, "fit", *main_line(llama_folder, tmp_path, "--run.name=x"), env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.index(f"note: {MISSING}, so") < done.stdout.index("training 128 of")
    assert f"instead of val_truthfulqa, because {MISSING}" in done.stdout
    assert selected(tmp_path / "runs/x")["reason"] == MISSING
    assert "fallback:\n    monitor: val_loss" in (tmp_path / "runs/x/config.yaml").read_text()


@pytest.mark.slow
def test_every_process_falls_back(llama_folder: Path, base_install: dict[str, str], tmp_path: Path) -> None:
    env = {**base_install, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    two = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.micro_batch_size=1", "--run.name=x")
    done = run_apart(tmp_path, "fit", *main_line(llama_folder, tmp_path, *two), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"note: {MISSING}, so") == 1
    assert selected(tmp_path / "runs/x")["reason"] == MISSING


@pytest.mark.slow
def test_the_other_commands_of_the_main_line(llama_folder: Path, base_install: dict[str, str], tmp_path: Path) -> None:
    env = {**base_install, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    config = main_line(llama_folder, tmp_path)
    counted = run_apart(tmp_path, "parameters", *config, env=env)
    assert counted.returncode == 0 and "128" in counted.stdout
    shown = run_apart(tmp_path, "fit", *config, "--print_config", env=env)
    assert "fallback:\n    monitor: val_loss\n    mode: min" in shown.stdout
    validated = run_apart(tmp_path, "validate", *config, env=env)
    assert validated.returncode == 0, validated.stderr
    assert validated.stdout.count(f"TaskScore: truthfulqa is not scored, for {MISSING}") == 1
    for command in ("test", "predict"):
        done = run_apart(tmp_path, command, *config, env=env)
        assert done.returncode == 0, done.stderr
        assert "truthfulqa" not in done.stdout + done.stderr


def test_what_the_extras_lack_is_said_before_training(
    cli: CLI, experiment: Path, tmp_path: Path, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from red_lightning.cli import missing_extras
    from red_lightning.tasks import data_to_text

    lacks = "METEOR needs the package pycocoevalcap: python -m pip install pycocoevalcap"
    monkeypatch.setattr(data_to_text, "meteor_missing", lambda: lacks)
    monkeypatch.setattr(missing_extras, "find_spec", lambda name: None)
    short = ("--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
    done = cli(*FIT, "--model.metrics", "[BLEU,METEOR]", *short)
    note = f"note: {lacks}; without it, METEOR is not measured"
    assert done.out.count(note) == 1 and done.out.index(note) < done.out.index("training ")
    assert "note:" not in cli(*FIT, "--model.metrics", "[BLEU,METEOR]", *short, "--run.test=false").out
    write_classifier(tmp_path, gpt2_folder)
    drawn = cli("fit", "--config", "texts.yaml", *short)
    note = "note: drawing needs matplotlib: python -m pip install matplotlib; without it, no confusion matrix is drawn"
    assert drawn.out.count(note) == 1 and drawn.out.index(note) < drawn.out.index("training ")


def test_a_strategy_without_its_package(cli: CLI, experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from red_lightning.strategies import deepspeed

    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    error = cli(*FIT, "--trainer.strategy", "trainer/deepspeed_zero2.yaml").error
    assert error == "the strategy DeepSpeed needs a package: pip install 'red-lightning[deepspeed]'"


def test_unreadable_questions(llama_folder: Path, cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    done = cli("fit", *main_line(llama_folder, tmp_path, "--run.name=x"))
    assert done.status == 0, done.err
    assert "note: the questions of 'truthfulqa' cannot be read: " in done.out
    assert "copy HF_HOME from a machine that has read them" in done.out
    assert selected(tmp_path / "runs/x")["reason"].startswith("the questions of 'truthfulqa' cannot be read: ")


def test_a_broken_harness_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from red_lightning.evaluation.leaderboard import require_harness

    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval/__init__.py").write_text("import a_package_that_does_not_exist\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnavailableError, match=r"cannot be imported \(No module named 'a_package_that_does_not_exist'"):
        require_harness()
