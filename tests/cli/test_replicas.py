"""Several runs of fit at once, against each of them alone."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from red_lightning.backbones.merging import Merged
from tests.backbones_zoo import save_backbone
from tests.cli.commands import FIT, command_line, environment, results, write_classifier, write_experiment
from tests.cli.conftest import CLI, Outcome

backward = Merged.backward
FIVE_STEPS = ("--trainer.max_steps", "5", "--trainer.val_check_interval", "2")


def without_dropout(folder: Path, family: str) -> Path:
    """A tiny backbone on disk that draws nothing in training."""
    save_backbone(family, folder, dropout=0.0)
    config = json.loads((folder / "config.json").read_text())
    config.update({name: 0.0 for name in config if name.endswith(("dropout_prob", "attention_dropout"))})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def replicas(*settings: dict[str, Any]) -> str:
    return f"--model.method.replicas={json.dumps(settings)}"


def done(outcome: Outcome) -> Outcome:
    assert outcome.status == 0, outcome.out + outcome.err
    return outcome


def require_alike(run: Path, alone: Path, close: float = 1e-6) -> None:
    """The same steps, rows and choice, and numbers that differ by rounding."""
    ours, theirs = results(run), results(alone)
    assert ours["train"] == theirs["train"]
    assert ours["data"] == theirs["data"]
    assert ours["seed"] == theirs["seed"]
    assert ours["selection"]["step"] == theirs["selection"]["step"]
    assert ours["selection"]["score"] == pytest.approx(theirs["selection"]["score"], rel=1e-5)
    edits, others = (load_file(folder / "edits" / "edits.safetensors") for folder in (run, alone))
    assert edits.keys() == others.keys()
    for name, tensor in others.items():
        torch.testing.assert_close(
            edits[name], tensor, rtol=0, atol=close, msg=lambda said, name=name: f"{name}: {said}"
        )
    assert json.loads((run / "edits/edits.json").read_text())["method"] == {
        "name": "RED",
        "sites": ["ffn"],
        "vectors": "both",
        "layers": None,
    }


def test_replicas_are_the_runs_of_their_seeds(cli: CLI, tmp_path: Path) -> None:
    write_experiment(tmp_path, without_dropout(tmp_path / "gpt2", "gpt2"))
    outcome = done(cli(*FIT, *FIVE_STEPS, "--run.name", "all", "--model.method.replicas", "3"))
    for seed in (7, 8, 9):
        done(cli(*FIT, *FIVE_STEPS, "--run.name", f"alone-{seed}", "--seed_everything", str(seed)))
        require_alike(tmp_path / f"runs/all/seed-{seed}", tmp_path / f"runs/alone-{seed}")
    orders = {(tmp_path / f"runs/all/seed-{seed}/edits/edits.safetensors").read_bytes() for seed in (7, 8, 9)}
    assert len(orders) == 3
    summary = json.loads((tmp_path / "runs/all/results.json").read_text())
    losses = [summary["replicas"][f"seed-{seed}"]["scores"]["val_loss"] for seed in (7, 8, 9)]
    assert summary["mean"]["val_loss"] == pytest.approx(sum(losses) / 3)
    assert summary["deviation"]["val_loss"] == pytest.approx(float(torch.tensor(losses, dtype=torch.float64).std()))
    assert f"{summary['mean']['val_loss']:.4f}" in outcome.out
    assert "training" in (tmp_path / "runs/all/seed-8.log").read_text()


@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_other_tasks_and_learning_rates(cli: CLI, tmp_path: Path, family: str) -> None:
    write_classifier(tmp_path, without_dropout(tmp_path / family, family))
    task = {"roberta": ("--model.head.dropout", "0"), "t5": ("--model", "TextToTextClassification")}[family]
    fit = ("fit", "--config", "texts.yaml", *task, "--trainer.max_steps", "6", "--trainer.gradient_clip_val", "0.5")
    both = [{"model.learning_rate": rate, "data.micro_batch_size": 4} for rate in (0.001, 0.003)]
    done(cli(*fit, "--run.name", "all", replicas(*both)))
    for rate in (0.001, 0.003):
        options = ("--model.learning_rate", str(rate), "--data.micro_batch_size", "4")
        done(cli(*fit, "--run.name", f"alone-{rate}", *options))
        require_alike(tmp_path / f"runs/all/learning_rate-{rate}-micro_batch_size-4", tmp_path / f"runs/alone-{rate}")


def test_lengths_of_their_own(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    """Replicas may end, and validate, at different times."""
    both = [{"trainer.max_steps": 3}, {"trainer.max_steps": 6}, {"data.train_size": 4, "trainer.val_check_interval": 1}]
    done(cli(*FIT, "--run.name", "all", replicas(*both)))
    runs = ["max_steps-3", "max_steps-6", "train_size-4-val_check_interval-1"]
    assert [results(tmp_path / "runs/all" / run)["train"]["steps"] for run in runs] == [3, 6, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_unfinished_replicas_go_on(cli: CLI, experiment: Path, tmp_path: Path, number: signal.Signals) -> None:
    """They were ended in order; what is left in the end is what an uninterrupted run leaves, dropout included."""
    options = (*FIT, "--trainer.max_epochs", "30", "--model.method.replicas", "2")
    done(cli(*options, "--run.name", "whole"))
    command = command_line(*options, "--run.name", "broken")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "step 50 of 180" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    assert error.count("--ckpt_path auto continues a fit") >= 1
    assert not (tmp_path / "runs/broken/results.json").exists()
    done(cli(*options, "--run.name", "broken", "--ckpt_path", "auto"))
    for seed in (7, 8):
        broken, whole = (tmp_path / "runs" / name / f"seed-{seed}" for name in ("broken", "whole"))
        assert results(broken)["scores"] == results(whole)["scores"]
        edits = [load_file(run / "edits/edits.safetensors") for run in (broken, whole)]
        assert all(torch.equal(edits[0][name], edits[1][name]) for name in edits[1])


def test_scores_of_a_16_bit_backbone_are_not_rounded(cli: CLI, tmp_path: Path) -> None:
    """Lightning makes 16 bits the process' default for each step; replicas that end apart must not keep it."""
    write_classifier(tmp_path, without_dropout(tmp_path / "roberta", "roberta"))
    fit = ("fit", "--config", "texts.yaml", "--model.head.dropout", "0", "--trainer.precision", "bf16-true")
    done(cli(*fit, "--run.name", "all", replicas(*({"trainer.max_epochs": epochs} for epochs in (1, 3, 2)))))
    assert torch.get_default_dtype() == torch.float32
    for epochs in (1, 3, 2):
        done(cli(*fit, "--run.name", f"alone-{epochs}", "--trainer.max_epochs", str(epochs)))
        ours, alone = (results(tmp_path / "runs" / run) for run in (f"all/max_epochs-{epochs}", f"alone-{epochs}"))
        assert ours["scores"] == pytest.approx(alone["scores"], rel=1e-6)


@pytest.mark.parametrize("option", ["packing", "share_sources"])
def test_packed_rows_and_shared_sources(cli: CLI, tmp_path: Path, option: str) -> None:
    write_experiment(tmp_path, without_dropout(tmp_path / "gpt2", "gpt2"))
    fit = (*FIT, "--trainer.max_steps", "4", "--data.global_batch_size", "4", f"--data.{option}", "true")
    shared: list[int] = []
    with patch.object(Merged, "backward", lambda self: shared.append(len(self.passes)) or backward(self)):
        done(cli(*fit, "--run.name", "all", "--model.method.replicas", "2"))
    assert shared == [1] * 4
    for seed in (7, 8):
        done(cli(*fit, "--run.name", f"alone-{seed}", "--seed_everything", str(seed)))
        require_alike(tmp_path / f"runs/all/seed-{seed}", tmp_path / f"runs/alone-{seed}")


def test_elsewhere_and_anew(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    """Replicas may have folders of their own, which --run.overwrite means too; the baseline is tested once."""
    both = [{"seed_everything": seed, "run.folder": "elsewhere", "run.name": f"s{seed}"} for seed in (1, 2)]
    options = (*FIT, "--trainer.max_steps", "2", "--run.baseline", "true", replicas(*both))
    done(cli(*options, "--run.name", "all"))
    assert [path.parent.name for path in tmp_path.glob("elsewhere/*/baseline.json")] == ["s1"]
    finished = (tmp_path / "elsewhere/s2/results.json").stat().st_mtime_ns
    done(cli(*options, "--run.name", "all", "--run.overwrite", "true"))
    assert (tmp_path / "elsewhere/s2/results.json").stat().st_mtime_ns > finished


def test_more_replicas_later(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    fit = (*FIT, "--trainer.max_steps", "2", "--run.name", "all")
    done(cli(*fit, "--model.method.replicas", "1", replicas({"seed_everything": 7})))
    (tmp_path / "runs/all/results.json").unlink()
    done(cli(*fit, "--model.method.replicas", "2", "--ckpt_path", "auto"))
    assert len(json.loads((tmp_path / "runs/all/results.json").read_text())["replicas"]) == 2


def test_finished_replicas_are_not_run_again(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    fit = (*FIT, "--model.method.replicas", "2", "--run.name", "all")
    done(cli(*fit))
    (tmp_path / "runs/all/results.json").unlink()
    finished = (tmp_path / "runs/all/seed-7/results.json").stat().st_mtime_ns
    outcome = done(cli(*fit, "--ckpt_path", "last"))
    assert "Replicas" in outcome.out
    assert (tmp_path / "runs/all/seed-7/results.json").stat().st_mtime_ns == finished
    assert "holds a finished run" in cli(*fit).error
    done(cli(*fit, "--run.overwrite", "true"))
    assert (tmp_path / "runs/all/seed-7/results.json").stat().st_mtime_ns > finished


def test_one_replica_fails(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    """The others are whole."""
    rates = [{"model.learning_rate": rate} for rate in (0.01, 1e29)]
    outcome = cli(*FIT, "--run.name", "all", "--trainer.max_epochs", "4", replicas(*rates))
    assert outcome.error.startswith("1 of 2 replicas failed, first replica learning_rate-1e+29: ")
    assert "no numbers" in outcome.error
    done(cli(*FIT, "--run.name", "alone", "--trainer.max_epochs", "4"))
    whole = results(tmp_path / "runs/all/learning_rate-0.01")
    assert whole["train"] == results(tmp_path / "runs/alone")["train"]
    assert f"{whole['selection']['score']:.4f}" in outcome.out
    again = ("--run.name", "all", "--trainer.max_epochs", "4", "--ckpt_path", "auto", replicas(*rates))
    assert "1 of 2 replicas failed" in cli(*FIT, *again).error
    assert results(tmp_path / "runs/all/learning_rate-0.01") == whole


def test_a_trial_run_leaves_nothing(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    done(cli(*FIT, "--trainer.fast_dev_run", "true", "--model.method.replicas", "2"))
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model.method.replicas", "0"), "model.method.replicas is 0, but must be at least 1"),
        (
            (replicas({"seed_everything": 1}, {"seed_everything": 1}),),
            "two of model.method.replicas are called 'seed-1'",
        ),
        ((replicas({}),), "an entry without settings"),
        ((replicas(),), "names no run"),
        ((replicas({"model.init_args.backbone": "x"}),), "cannot differ in model.init_args.backbone"),
        ((replicas({"model": {"backbone": "x"}}),), "cannot differ in model.backbone"),
        ((replicas({"model.backbone": "x"}, {"seed_everything": 1}),), "cannot differ in model.backbone"),
        ((replicas({"model.method.sites": ["attention"]}),), "cannot differ in model.method.sites"),
        (("--model.method.replicas", "2", "--trainer.devices", "2"), "give --trainer.devices 1"),
        (("--model.method.replicas", "2", "--trainer.strategy", "ddp"), "on one device"),
        (("--model.method.replicas", "2", "--ckpt_path", "some.ckpt"), "give --ckpt_path last"),
        (("--model.method.replicas", "2", "--seed_everything", "false"), "counts from the run's seed"),
        (
            (replicas({"data.train_file": "none.jsonl"}, {"seed_everything": 1}),),
            "replica train_file-none.jsonl: .*none",
        ),
        ((replicas({"seed_everything": 1}, {"model.learning_rates": 1}),), "learning_rates"),
    ],
)
def test_bad_replicas(cli: CLI, experiment: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert re.search(said, cli(*FIT, *options).error)
    assert list(tmp_path.glob("runs/*")) == []


def test_other_commands_refuse_them(cli: CLI, experiment: Path) -> None:
    error = cli("test", "--config", "small.yaml", "--model.method.replicas", "2").error
    assert "model.method.replicas is for fit" in error
    one = done(cli("parameters", "--config", "small.yaml")).out
    assert done(cli("parameters", "--config", "small.yaml", "--model.method.replicas", "8")).out == one
