"""How a classifier trains: dropout, the head's first weights, class weights, what moves, and continuing a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from red_lightning import RED
from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.errors import UsageError
from red_lightning.methods import HeadOnly
from red_lightning.methods.method import Method
from red_lightning.tasks import Classification
from tests.backbones_zoo import save_backbone
from tests.callbacks.test_resume import KeepEvery
from tests.labeled import configured_classifier, make_classifier, make_labeled_data, train_batch
from tests.training import learned, make_trainer


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return save_backbone("roberta", tmp_path / "roberta")


class Modes(Classification):
    """Remembers whether dropout was on, in each step."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.modes: dict[str, list[bool]] = {"train": [], "validation": [], "test": [], "predict": []}
        self.apart: list[bool] = []

    def note(self, step: str) -> None:
        assert self.head is not None
        backbone = [module.training for module in self.backbone.modules() if isinstance(module, nn.Dropout)]
        head = [module.training for module in self.head.modules() if isinstance(module, nn.Dropout)]
        assert len(backbone) > 1
        assert len(head) == 1
        every = {*backbone, *head, self.training, self.backbone.training, self.head.training}
        assert len(every) == 1
        self.modes[step].append(every.pop())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.note("train")
        self.apart.append(not torch.equal(self.loss(batch), self.loss(batch)))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.note("validation")
        assert torch.equal(self.loss(batch), self.loss(batch))
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.note("test")
        return super().test_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        self.note("predict")
        return super().predict_step(batch, batch_idx)


@pytest.mark.parametrize("family", ["roberta", "bert", "deberta", "modernbert", "gpt2"])
def test_dropout_is_on_in_training_only(family: str, tmp_path: Path) -> None:
    task = make_classifier(save_backbone(family, tmp_path / family), Modes)
    data = make_labeled_data(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=1, val_check_interval=3)
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    trainer.predict(task, datamodule=data)
    assert task.modes["train"] == [True] * 12  # 6 steps in each epoch, also between and after validations
    assert task.modes["validation"] == [False] * (1 + 4 * 3)
    assert task.modes["test"] == task.modes["predict"] == [False] * 4
    assert all(task.apart)


def test_dropout_is_on_after_a_test_of_the_unedited_backbone(roberta: Path, tmp_path: Path) -> None:
    task, data = make_classifier(roberta, Modes), make_labeled_data(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.test(task, datamodule=data, verbose=False)
    trainer.fit(task, datamodule=data)
    assert task.modes["train"] == [True] * 6


@pytest.mark.parametrize(
    ("backbone", "head", "differs"), [(0.0, 0.0, False), (0.3, 0.0, True), (0.0, 0.3, True)], ids=str
)
def test_both_dropouts_act_from_the_first_step(backbone: float, head: float, differs: bool, tmp_path: Path) -> None:
    folder = save_backbone("gpt2", tmp_path / "gpt2", dropout=backbone)
    task = make_classifier(folder, Modes, head=HeadOptions(dropout=head))
    make_trainer(tmp_path, max_steps=2).fit(task, datamodule=make_labeled_data(tmp_path))
    assert task.apart == [differs] * 2


def first_head(backbone: Path, seed: int, method: Method, draws: int = 0, **options: Any) -> dict[str, Tensor]:
    seed_everything(seed, verbose=False)
    task = make_classifier(backbone, method=method, **options)
    task.take_labels(["a", "b", "c"], ["accuracy"])
    torch.rand(draws)  # whatever was drawn before
    task.configure_model()
    assert task.head is not None
    return {name: value.clone() for name, value in task.head.state_dict().items()}


def test_the_first_head_depends_on_the_seed_only(roberta: Path) -> None:
    first = first_head(roberta, 3, RED())
    assert set(first) == {"dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"}
    for draws, method in enumerate((RED(["attention", "ffn"], "bias"), HeadOnly()), start=1):
        same = first_head(roberta, 3, method, draws, learning_rate=1.0)
        assert all(torch.equal(same[name], value) for name, value in first.items())
    other = first_head(roberta, 4, RED())
    assert not any(torch.equal(other[name], value) for name, value in first.items())
    for value in first.values():  # torch's own initialization: uniform up to 1 / sqrt(width)
        assert value.abs().max() <= 32**-0.5
    assert first["dense.weight"].std().item() == pytest.approx((3 * 32) ** -0.5, rel=0.05)


COUNTS = {"French": 3, "Italian": 4, "Thai": 4}  # of the 11 training rows


def weighted(roberta: Path, folder: Path, weights: Any, **options: Any) -> Classification:
    """A task that a trainer has set up and trained for one step at learning rate 0."""
    task = make_classifier(roberta, class_weights=weights, learning_rate=0.0)
    make_trainer(folder, max_steps=1).fit(task, datamodule=make_labeled_data(folder, **options))
    return task.eval()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("balanced", [11 / (3 * count) for count in COUNTS.values()]),
        ({"Thai": 5.0, "French": 0.25}, [0.25, 1.0, 5.0]),
        ({"Italian": 0}, [1.0, 0.0, 1.0]),
    ],
    ids=["balanced", "given", "zero"],
)
def test_class_weights_are_torchs(weights: Any, expected: list[float], roberta: Path, tmp_path: Path) -> None:
    task = weighted(roberta, tmp_path, weights)
    batch = train_batch(task, tmp_path, 11)
    assert np.bincount(batch["labels"]).tolist() == list(COUNTS.values())
    with torch.no_grad():
        logits = task(batch["input_ids"], batch["attention_mask"])
        theirs = cross_entropy(logits, batch["labels"], torch.tensor(expected), reduction="none")
        plain = cross_entropy(logits, batch["labels"], reduction="none")
        torch.testing.assert_close(task.loss(batch), theirs, atol=1e-6, rtol=1e-5)
        task.log = lambda *_, **__: None  # type: ignore[method-assign]
        assert task.training_step(batch, 0).item() == pytest.approx(theirs.mean().item(), rel=1e-5)
        assert not torch.allclose(theirs, plain, rtol=0.01)
        torch.testing.assert_close(task.loss_and_answers(batch)[0], plain, atol=1e-6, rtol=1e-5)  # in validation
    assert "loss_weights" not in task.state_dict()


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ({"Tai": 2.0}, r"class_weights names 'Tai', which is no class: did you mean 'Thai'\?"),
        ({"Thai": -1.0}, r"gives 'Thai' the weight -1\.0, but must be at least 0"),
        ({"Thai": float("inf")}, r"gives 'Thai' the weight inf"),
        ({"Thai": float("nan")}, r"gives 'Thai' the weight nan"),
    ],
)
def test_wrong_class_weights_are_refused(weights: Any, complaint: str, roberta: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        weighted(roberta, tmp_path, weights)


def test_numbers_have_no_class_weights(roberta: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class_weights needs classes, but the labels are numbers"):
        weighted(roberta, tmp_path, "balanced", regression=True)


@pytest.mark.parametrize("method", [RED(), HeadOnly()], ids=["RED", "HeadOnly"])
def test_only_the_method_and_the_head_move(method: Method, roberta: Path, tmp_path: Path) -> None:
    task = make_classifier(roberta, method=method, weight_decay=0.1)
    untouched = configured_classifier(roberta, method=HeadOnly()).backbone.state_dict()
    make_trainer(tmp_path, max_steps=3).fit(task, datamodule=make_labeled_data(tmp_path))
    backbone = task.backbone.state_dict()
    assert all(torch.equal(backbone[name], value) for name, value in untouched.items())
    vectors = {name: value for name, value in backbone.items() if name not in untouched}
    layers, width, classes = 2, 32, 3
    edits = 2 * layers if isinstance(method, RED) else 0
    assert len(vectors) == edits
    assert not any(torch.equal(value, value.round()) for value in vectors.values())  # they began as 0 and 1
    initial = first_head(roberta, 7, HeadOnly())
    assert not any(torch.equal(value, initial[name]) for name, value in task.head.state_dict().items())  # type: ignore[union-attr]
    assert task.trainable_counts() == {
        "trainable_parameters": edits * width,
        "head_parameters": width * width + width + width * classes + classes,
    }


def test_a_continued_run_is_bit_identical(roberta: Path, tmp_path: Path) -> None:
    """With the head, its dropout, the backbone's, class weights and batches of like length."""
    options: dict[str, Any] = {"class_weights": "balanced"}
    data: dict[str, Any] = {"group_by_length": True}
    keeper = KeepEvery(every_n_steps=1)
    trainer = make_trainer(tmp_path / "whole", keeper, max_epochs=2)
    task = make_classifier(roberta, **options)
    trainer.fit(task, datamodule=make_labeled_data(tmp_path, **data))
    end = learned(task)  # type: ignore[arg-type]
    assert {name.split(".")[0] for name in end} == {"backbone", "head"}
    checkpoints = sorted((tmp_path / "whole/checkpoints").glob("*.kept"))
    assert len(checkpoints) == trainer.global_step == 12
    for checkpoint in checkpoints:
        again = make_trainer(tmp_path / "resumed", KeepEvery(every_n_steps=1), max_epochs=2)
        task = make_classifier(roberta, **options)
        again.fit(task, datamodule=make_labeled_data(tmp_path, **data), ckpt_path=str(checkpoint), weights_only=True)
        assert again.global_step == 12
        differing = [name for name, value in learned(task).items() if not torch.equal(value, end[name])]  # type: ignore[arg-type]
        assert not differing, checkpoint.name


def test_plain_loaders_do_if_the_labels_are_given(roberta: Path, tmp_path: Path) -> None:
    data = make_labeled_data(tmp_path)
    data.connect(make_classifier(roberta).tokenizer, False)
    data.setup("fit")

    def fit(task: Classification) -> None:
        trainer = make_trainer(tmp_path, max_steps=1)
        trainer.fit(task, train_dataloaders=data.train_dataloader(), val_dataloaders=data.val_dataloader())
        assert trainer.global_step == 1

    with pytest.raises(UsageError, match="the labels are not known"):
        fit(make_classifier(roberta))
    task = make_classifier(roberta)
    task.take_labels(["French", "Italian", "Thai"], ["accuracy"])
    fit(task)
    task = make_classifier(roberta, class_weights="balanced")
    task.take_labels(["French", "Italian", "Thai"], ["accuracy"])
    with pytest.raises(UsageError, match="class_weights needs a data module"):
        fit(task)
