"""An optimizer step follows the mean over all its labels, however its rows are divided into micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything

from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.callbacks import BestCheckpoint, RunSummary
from red_lightning.errors import UsageError
from tests.backbones_zoo import save_backbone
from tests.labeled import make_classifier, make_labeled_data
from tests.training import learned, make_data, make_task, make_trainer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backbones without dropout, which would differ between micro-batches."""
    root = tmp_path_factory.mktemp("without_dropout")
    return {family: save_backbone(family, root / family, dropout=0.0) for family in ("gpt2", "bert")}


class NoDropout(Callback):
    """BERT's configuration leaves some on."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0


@pytest.fixture(autouse=True)
def seeded() -> None:
    seed_everything(7, verbose=False)  # the data modules take the run's seed


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Equal but for the order in which float32 numbers were added up."""
    return all(torch.allclose(first[name], second[name], rtol=0, atol=2e-6) for name in first)


@pytest.mark.parametrize("micro", [1, 2])
def test_texts_are_weighted_by_their_tokens(micro: int, folders: dict[str, Path], tmp_path: Path) -> None:
    """SGD, because Adam would forgive a step of the wrong size."""
    results = []
    for size in (None, micro):
        task = make_task(folders["gpt2"], optimizer="SGD", learning_rate=0.5)
        data = make_data(tmp_path, global_batch_size=4, micro_batch_size=size)  # 11 rows: the last step has 3
        trainer = make_trainer(tmp_path / str(size), max_epochs=2)
        trainer.fit(task, datamodule=data)
        assert trainer.global_step == 6
        results.append(learned(task))
    assert close(*results)
    moved = max((value - value.round()).abs().max().item() for value in results[0].values())
    assert moved > 1e-3


def test_texts_of_one_batch_get_their_plain_mean(folders: dict[str, Path], tmp_path: Path) -> None:
    """Against the gradient of transformers' own loss over the whole batch."""
    task = make_task(folders["gpt2"], optimizer="SGD", learning_rate=1.0, schedule="constant")
    data = make_data(tmp_path, rows=4, global_batch_size=4, micro_batch_size=1)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(task, datamodule=data)
    plain = make_task(folders["gpt2"])
    plain.configure_model()
    whole = data.collate("train")([data._encoded["train"][row] for row in range(4)])
    loss = plain.backbone(whole["input_ids"], attention_mask=whole["attention_mask"], labels=whole["labels"]).loss
    loss.backward()
    before = learned(plain)
    expected = {name: before[name] - p.grad for name, p in plain.trainable_parameters().items()}  # type: ignore[operator]
    assert close(learned(task), expected)


def test_classes_are_weighted_by_rows(folders: dict[str, Path], tmp_path: Path) -> None:
    results = []
    for size in (None, 1):
        task = make_classifier(folders["bert"], optimizer="SGD", learning_rate=0.1, head=HeadOptions(dropout=0.0))
        data = make_labeled_data(tmp_path, 11, global_batch_size=4, micro_batch_size=size)
        callbacks = [BestCheckpoint("val_score", "max"), NoDropout()]
        make_trainer(tmp_path / str(size), max_epochs=2, callbacks=callbacks).fit(task, datamodule=data)
        results.append(learned(task))
    assert close(*results)


@pytest.mark.parametrize(("before", "now"), [(1, None), (None, 2), (2, 1)])
def test_a_run_goes_on_with_another_division(
    before: int | None, now: int | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_epochs": 2}
    whole = make_task(folders["gpt2"])
    make_trainer(tmp_path / "whole", **options).fit(whole, datamodule=make_data(tmp_path, global_batch_size=4))
    begun = make_task(folders["gpt2"])
    keeper = BestCheckpoint(every_n_steps=2)
    data = make_data(tmp_path, global_batch_size=4, micro_batch_size=before)
    # stopped as if it had been killed at step 2 of 6, in the middle of an epoch
    trainer = make_trainer(tmp_path / "begun", keeper, **options)
    kept = tmp_path / "kept.ckpt"

    def keep(*_: Any) -> None:
        if trainer.global_step == 2 and not kept.exists():
            trainer.save_checkpoint(kept)

    keeper.on_train_batch_end = keep  # type: ignore[method-assign]
    trainer.fit(begun, datamodule=data)
    resumed = make_task(folders["gpt2"])
    data = make_data(tmp_path, global_batch_size=4, micro_batch_size=now)
    trainer = make_trainer(tmp_path / "resumed", **options)
    trainer.fit(resumed, datamodule=data, ckpt_path=str(kept), weights_only=True)
    assert trainer.global_step == 6
    assert close(learned(resumed), learned(whole))


def test_accumulation_is_not_given_twice(folders: dict[str, Path], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, accumulate_grad_batches=2)
    with pytest.raises(UsageError, match=r"trainer\.accumulate_grad_batches is 2, .*data\.micro_batch_size"):
        trainer.fit(make_task(folders["gpt2"]), datamodule=make_data(tmp_path))


def test_what_makes_a_step_is_said(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[BestCheckpoint(), RunSummary()])
    trainer.fit(make_task(folders["gpt2"]), datamodule=make_data(tmp_path, global_batch_size=4, micro_batch_size=1))
    assert "an optimizer step takes 1 rows x 4 micro-batches = 4 rows" in capsys.readouterr().out
