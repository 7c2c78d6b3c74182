"""A classifier's checkpoints and edits hold the vectors and the head, and say what they belong to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from red_lightning import RED, apply_edits, load_head, save_edits
from red_lightning.adapters import read_edits
from red_lightning.backbones.classification_head import HeadOptions, pool
from red_lightning.callbacks import read_checkpoint
from red_lightning.errors import UsageError, usage_error_in
from red_lightning.methods import HeadOnly
from red_lightning.tasks import Classification
from tests.backbones_zoo import save_backbone
from tests.labeled import configured_classifier, make_classifier, make_labeled_data, train_batch
from tests.training import learned, make_trainer


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return save_backbone("roberta", tmp_path / "roberta")


@pytest.fixture
def trained(roberta: Path, tmp_path: Path) -> tuple[Classification, Path]:
    """A trained task and its last checkpoint."""
    task = make_classifier(roberta)
    make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=make_labeled_data(tmp_path))
    return task, tmp_path / "checkpoints/last.ckpt"


def test_a_checkpoint_holds_vectors_and_head(trained: tuple[Classification, Path], roberta: Path) -> None:
    task, path = trained
    state = read_checkpoint(path)["state_dict"]
    layers = (f"backbone.encoder.layer.{n}.output.dense.editor.{v}" for n in (0, 1) for v in ("scaling", "bias"))
    assert set(state) == {*layers, "head.dense.weight", "head.dense.bias", "head.out_proj.weight", "head.out_proj.bias"}
    values = learned(task)  # type: ignore[arg-type]
    assert all(torch.equal(value, values[name]) for name, value in state.items())
    fresh = make_classifier(roberta)
    fresh.recall(read_checkpoint(path)["red_lightning"])
    fresh.on_load_checkpoint(read_checkpoint(path))
    fresh.load_state_dict(state, strict=False)
    batch = train_batch(task, path.parent)
    with torch.no_grad():
        assert torch.equal(fresh.eval().loss(batch), task.eval().loss(batch))


def test_foreign_checkpoints_are_refused(trained: tuple[Classification, Path], roberta: Path, tmp_path: Path) -> None:
    path = str(trained[1])
    content = read_checkpoint(trained[1])
    for labels, described in (
        (["French", "Thai"], r"2 classes \(French, Thai\)"),
        (["French", "Italian", "Dutch"], r"3 classes \(French, Italian, Dutch\)"),
        (["Thai", "Italian", "French"], r"3 classes \(Thai, Italian, French\)"),
        ([], "numbers"),
    ):
        task = make_classifier(roberta)
        task.take_labels(labels, [])
        message = (
            rf"^the checkpoint was trained for 3 classes \(French, Italian, Thai\), but the data have {described}; "
        )
        with pytest.raises(UsageError, match=message):
            task.on_load_checkpoint(content)
    for data in (make_labeled_data(tmp_path / "two", classes=2), make_labeled_data(tmp_path / "n", regression=True)):
        with pytest.raises(Exception) as caught:
            make_trainer(tmp_path).test(make_classifier(roberta), datamodule=data, ckpt_path=path, weights_only=True)
        assert "the checkpoint was trained for 3 classes" in str(usage_error_in(caught.value))
    task = make_classifier(roberta, head=HeadOptions(hidden=False))
    task.recall(content["red_lightning"])
    with pytest.raises(UsageError, match=r"other settings .* 'head\.dense\.bias'"):
        task.on_load_checkpoint(content)


@pytest.mark.parametrize(("family", "method"), [("roberta", RED()), ("bert", RED(["attention"])), ("gpt2", HeadOnly())])
def test_edits_and_head_in_ones_own_code(family: str, method: Any, tmp_path: Path) -> None:
    folder = save_backbone(family, tmp_path / family)
    task = configured_classifier(folder, method=method)
    tensors = {name.removeprefix("backbone."): value for name, value in task.trainable_parameters().items()}
    save_edits(tmp_path / "edits", tensors, task.record())
    _, record = read_edits(tmp_path / "edits")
    assert record["dtype"] == "float32"  # of a run that names none
    assert record["labels"] == ["French", "Italian", "Thai"]
    options = {"add_pooling_layer": False} if family == "roberta" else {}
    backbone = AutoModel.from_pretrained(folder, **options).eval()
    apply_edits(backbone, tmp_path / "edits")
    head = load_head(tmp_path / "edits")
    batch = train_batch(task, tmp_path)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        logits = head(pool(backbone(**inputs), inputs["attention_mask"], record["head"]["pooling"]))
        assert torch.equal(logits, task(**inputs))
    assert not head.training


def test_a_models_pooler_and_head_do_not_hide_its_hidden_layers(roberta: Path, tmp_path: Path) -> None:
    task = configured_classifier(roberta)
    vectors = {name.removeprefix("backbone."): p for name, p in task.trainable_parameters().items()}
    save_edits(tmp_path / "edits", vectors, task.record())
    for auto in (AutoModel, AutoModelForSequenceClassification):  # with a pooler; inside another model
        model = auto.from_pretrained(roberta).eval()
        applied = apply_edits(model, tmp_path / "edits")
        assert {name: p.tolist() for name, p in applied.items()} == {
            name: p.tolist() for name, p in vectors.items() if not name.startswith("head.")
        }
        assert sum(p.requires_grad for p in model.base_model.parameters()) == len(applied)
    with pytest.raises(UsageError, match="belong to another backbone"):
        apply_edits(AutoModel.from_pretrained(save_backbone("roberta", tmp_path / "other", seed=5)), tmp_path / "edits")
