"""What a model answers while it is trained is written down, and training does not notice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from red_lightning.callbacks import BestCheckpoint, SampleGenerations
from red_lightning.errors import UsageError
from red_lightning.generation import decode
from red_lightning.tasks import InstructionTuning
from tests.conversations import Conversations, tuning
from tests.training import learned, make_data, make_task, make_trainer


def fit(backbone: Path, folder: Path, *callbacks: Callback, **options: Any) -> tuple[InstructionTuning, BestCheckpoint]:
    """Three epochs of three steps each, with dropout."""
    task, checkpoint = tuning(backbone), BestCheckpoint(folder=str(folder / "checkpoints"))
    resume = options.pop("ckpt_path", None)
    trainer = make_trainer(folder, callbacks=[checkpoint, *callbacks], **options)
    trainer.fit(task, datamodule=Conversations(), ckpt_path=resume)
    return task, checkpoint


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


class Apart(Callback):
    """Answers the prompts itself, each alone."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    @torch.no_grad()
    def on_validation_end(self, trainer: Any, task: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(task, InstructionTuning)
        for number in range(2):
            batch = trainer.datamodule.prompts("validation", 2)
            real = batch["attention_mask"][number].bool()
            ids = batch["input_ids"][number][real][None]
            self.answers += decode(task.backbone, ids, torch.ones_like(ids), task.tokenizer, task.decoding)


def test_each_validation_answers_the_first_prompts(gpt2_folder: Path, tmp_path: Path) -> None:
    apart = Apart()
    fit(gpt2_folder, tmp_path, SampleGenerations(), apart, num_sanity_val_steps=1)
    samples = written(tmp_path)
    assert [sample["step"] for sample in samples] == [3, 3, 6, 6, 9, 9]
    prompts = ["What does Blue Spice 1000 serve today?", "What does The Vaults 1001 serve today today?"]
    assert all(prompt in sample["prompt"] for prompt, sample in zip(prompts * 3, samples, strict=True))
    assert [sample["answer"] for sample in samples] == apart.answers
    assert len({*apart.answers}) > 1


@pytest.mark.parametrize("count", [0, 3])
def test_training_does_not_notice(count: int, gpt2_folder: Path, tmp_path: Path) -> None:
    runs = []
    for name, callbacks in (("without", []), ("with", [SampleGenerations(count)])):
        folder = tmp_path / name
        task, checkpoint = fit(gpt2_folder, folder, *callbacks, val_check_interval=2)
        runs.append((learned(task), checkpoint.best_score, torch.get_rng_state()))
        assert (folder / "samples.jsonl").exists() == (name == "with" and count > 0)
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_a_resumed_run_repeats_no_sample(gpt2_folder: Path, tmp_path: Path) -> None:
    fit(gpt2_folder, tmp_path, SampleGenerations())
    never_killed = written(tmp_path)
    folder = tmp_path / "killed"
    _, checkpoint = fit(gpt2_folder, folder, SampleGenerations(), max_epochs=2)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:  # as if it had been killed at step 9
        file.write(json.dumps({"step": 9, "prompt": "?", "answer": "!"}) + "\n")
    fit(gpt2_folder, folder, SampleGenerations(), ckpt_path=str(checkpoint.last_path))
    assert [sample["step"] for sample in written(folder)] == [3, 3, 6, 6, 9, 9]
    # the schedule of the run that was to end after two epochs is another one, its first steps are not
    assert [sample["prompt"] for sample in written(folder)] == [sample["prompt"] for sample in never_killed]


def test_samples_go_to_tensorboard(gpt2_folder: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(str(tmp_path), name="board", version="")
    fit(gpt2_folder, tmp_path, SampleGenerations(1), logger=logger, max_epochs=1)
    events = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    (event,) = events.Tensors("sample 0/text_summary")
    (sample,) = written(tmp_path)
    text = event.tensor_proto.string_val[0].decode()
    assert event.step == 3
    assert sample["prompt"] in text and sample["answer"] in text


def test_nothing_is_written_in_a_dry_run(gpt2_folder: Path, tmp_path: Path) -> None:
    fit(gpt2_folder, tmp_path, SampleGenerations(), fast_dev_run=True)
    assert not (tmp_path / "samples.jsonl").exists()


def test_what_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, callbacks=[SampleGenerations()])
    with pytest.raises(UsageError, match="the data module TextPairs has none; leave the callback out"):
        trainer.fit(make_task(gpt2_folder), datamodule=make_data(tmp_path))
    with pytest.raises(UsageError, match="count of SampleGenerations is -1"):
        SampleGenerations(-1)
