"""The callback that scores a task while a model trains."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

from lightning import Callback, LightningModule, Trainer

from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.errors import UsageError, usage_error_in
from red_lightning.evaluation import TaskScore
from red_lightning.evaluation.language_model import LanguageModel
from red_lightning.evaluation.leaderboard import load_tasks
from red_lightning.evaluation.scoring import score_tasks
from tests.backbones_zoo import save_backbone
from tests.cli.commands import environment
from tests.training import learned, make_data, make_task, make_trainer

CUISINES = ["Thai", "Italian", "French", "Chinese"]

TASK = """
task: cuisines
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{name}}}} serves"
doc_to_choice: {cuisines}
doc_to_target: cuisine
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of ten questions, called ``cuisines``."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [{"name": f"The Vaults {index}", "cuisine": index % 4} for index in range(10)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = TASK.format(file=folder / "rows.jsonl", cuisines=json.dumps(CUISINES))
    (folder / "cuisines.yaml").write_text(text)
    return folder


class Seen(Callback):
    """What the validations showed."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.modes: list[bool] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.scores.append(float(trainer.callback_metrics.get("val_cuisines_acc", math.nan)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.modes.append(all(module.training for module in pl_module.modules()))


def fit(backbone: Path, folder: Path, *callbacks: Callback, ckpt_path: str | None = None, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    task = make_task(backbone, learning_rate=0.05)
    trainer = make_trainer(folder, **{"callbacks": list(callbacks), **options})
    trainer.fit(task, datamodule=make_data(folder), ckpt_path=ckpt_path, weights_only=True)
    return task


def test_training_is_the_same_and_the_best_is_kept(gpt2_folder: Path, tmp_path: Path, own_task: Path) -> None:
    score, seen = TaskScore("cuisines", include_path=str(own_task)), Seen()
    keeper = BestCheckpoint("val_cuisines_acc", "max")
    with_it = fit(gpt2_folder, tmp_path / "with", keeper, score, seen, num_sanity_val_steps=1)
    without = fit(gpt2_folder, tmp_path / "without", BestCheckpoint(), num_sanity_val_steps=1)
    for name, value in learned(without).items():
        assert torch.equal(value, learned(with_it)[name])
    assert all(seen.modes)  # dropout is on again
    assert len(seen.scores) == 3 and keeper.best_score == max(seen.scores)
    # what was logged is the score of the model of that step
    with_it.load_state_dict(read_checkpoint(keeper.best_path)["state_dict"], strict=False)
    with_it.backbone.eval()
    loaded = load_tasks("cuisines", include_path=own_task)
    found = score_tasks(LanguageModel(with_it.backbone, with_it.tokenizer, 3), "cuisines", loaded)
    assert found["metrics"]["cuisines"]["acc,none"] == pytest.approx(keeper.best_score)
    assert found["questions"] == 10


def test_the_last_score_stands_in_between(gpt2_folder: Path, tmp_path: Path, own_task: Path) -> None:
    def score() -> TaskScore:
        return TaskScore("cuisines", every_n_validations=2, include_path=str(own_task))

    whole, seen = score(), Seen()
    fit(gpt2_folder, tmp_path / "whole", BestCheckpoint("val_cuisines_acc", "max"), whole, seen, max_epochs=4)
    assert whole.validations == 4
    assert seen.scores[0] == seen.scores[1] and seen.scores[2] == seen.scores[3]
    half, rest = Seen(), Seen()
    keeper = BestCheckpoint("val_cuisines_acc", "max")
    fit(gpt2_folder, tmp_path / "half", keeper, score(), half, max_epochs=4)
    assert half.scores == seen.scores
    content = read_checkpoint(keeper.last_path)
    assert content["callbacks"]["TaskScore[cuisines]"] == whole.state_dict()
    resumed = score()
    last = str(keeper.last_path)
    fit(
        gpt2_folder,
        tmp_path / "half",
        BestCheckpoint("val_cuisines_acc", "max"),
        resumed,
        rest,
        ckpt_path=last,
        max_epochs=5,
    )
    assert resumed.validations == 5 and len(rest.scores) == 1


def refusal(backbone: Path, folder: Path, *callbacks: Callback) -> str:
    task = make_task(backbone)
    trainer = make_trainer(folder, callbacks=list(callbacks), num_sanity_val_steps=1)
    with pytest.raises(Exception) as caught:
        trainer.fit(task, datamodule=make_data(folder))
    error = usage_error_in(caught.value)
    assert error is not None and trainer.global_step == 0
    return str(error)


def test_a_checkpoint_is_not_chosen_by_what_cannot_be_measured(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets.config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    message = refusal(gpt2_folder, tmp_path, BestCheckpoint("val_truthfulqa", "max"), TaskScore())
    assert message.startswith(
        "the checkpoint is chosen by val_truthfulqa, but the questions of 'truthfulqa' cannot be read: "
    )
    assert message.endswith("--checkpoint.monitor val_loss --checkpoint.mode min")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    message = refusal(gpt2_folder, tmp_path, BestCheckpoint("val_truthfulqa", "max"), TaskScore())
    assert "pip install 'red-lightning[evaluation]'" in message
    capsys.readouterr()
    fit(gpt2_folder, tmp_path, BestCheckpoint(), TaskScore(), max_epochs=1)  # chosen by the loss
    assert "TaskScore: truthfulqa is not scored, for lm-eval is not installed" in capsys.readouterr().out


def test_bad_input(gpt2_folder: Path, tmp_path: Path, own_task: Path) -> None:
    own = {"include_path": str(own_task)}
    message = refusal(gpt2_folder, tmp_path, BestCheckpoint("val_cuisines_acc", "min"), TaskScore("cuisines", **own))
    assert message.endswith("val_cuisines_acc is best when largest; give --checkpoint.mode max")
    message = refusal(gpt2_folder, tmp_path, BestCheckpoint("val_cuisines_f1", "max"), TaskScore("cuisines", **own))
    assert "'val_cuisines_f1', which validation never logs: did you mean 'val_cuisines_acc'?" in message
    for options in ({"batch_size": 0}, {"every_n_validations": 0}, {"limit": 0}):
        with pytest.raises(UsageError, match=f"{next(iter(options))} of TaskScore is 0, but must be at least 1"):
            TaskScore(**options)


@pytest.mark.slow
def test_several_processes_score_what_one_does(tmp_path: Path, own_task: Path) -> None:
    backbone = save_backbone("llama", tmp_path / "llama", dropout=0.0)
    seen = {}
    for strategy, devices in (("auto", 1), ("ddp", 2), ("fsdp2", 2), ("fsdp", 2)):
        settings = {"backbone": str(backbone), "out": str(tmp_path / strategy), "task": str(own_task)}
        text = json.dumps({**settings, "strategy": strategy, "devices": devices})
        env = environment(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(tmp_path / "cache"))
        command = [sys.executable, "-m", "tests.evaluation.train_and_score", text]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{strategy}: {done.stdout}{done.stderr}"
        seen[strategy] = json.loads((tmp_path / f"{strategy}.json").read_text())
    assert seen["ddp"] == seen["fsdp2"] == seen["fsdp"] == seen["auto"]
    assert seen["auto"]["validations"] == 2
