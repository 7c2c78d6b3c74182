"""What is written, read as a label: what cannot be read is wrong and counted; the authors' scores on demand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from red_lightning.data import LabeledTexts
from red_lightning.tasks import TextToTextClassification, text_to_text
from tests.labeled import LABELS, make_labeled_data, make_writer, row_losses, train_batch
from tests.training import make_trainer


@pytest.mark.parametrize(
    ("text", "label"),
    [("0", 0), ("1", 1), ("2", 2), (" 1 ", 1), ("1\n", 1)]
    + [(text, 3) for text in ("", "3", "-1", "01", "1.0", "1 1", "+1", "one", "Thai", "²", "0 0", "1.")],
)
def test_a_class_number_is_read(text: str, label: int, t5_folder: Path) -> None:
    assert make_writer(t5_folder, LABELS).read(text) == label


def test_a_name_is_read(t5_folder: Path) -> None:
    task = make_writer(t5_folder, LABELS, targets="name", max_new_tokens=12)
    assert [task.read(text) for text in LABELS] == [0, 1, 2]
    assert [task.read(text) for text in ("thai", "Tha", "Thai food", "", "0", "2")] == [3] * 6


@pytest.mark.parametrize(
    ("text", "number"),
    [("2.5", 2.5), ("3", 3.0), ("-0.5", -0.5), (" 4.0 ", 4.0), (".5", 0.5)]
    + [(text, None) for text in ("", "nan", "inf", "-inf", "2,5", "2.5.", "two", "1e999", "2 5")],
)
def test_a_number_is_read(text: str, number: float | None, t5_folder: Path) -> None:
    value = make_writer(t5_folder, []).read(text)
    assert math.isnan(value) if number is None else value == number


class Script:
    """Stands for decoding: says by each row's text what was written."""

    def __init__(self, task: TextToTextClassification, written: list[str]) -> None:
        self.task, self.written = task, written

    def __call__(self, backbone: Any, input_ids: Tensor, mask: Tensor, tokenizer: Any, *_: Any) -> list[str]:
        assert backbone is self.task.backbone
        texts = [tokenizer.decode(ids[kept.bool()]) for ids, kept in zip(input_ids, mask, strict=True)]
        rows = [int(next(word for word in text.split() if word.isdigit())) for text in texts]
        return [self.written[row] for row in rows]


def scripted(
    task: TextToTextClassification, written: list[str], patch: pytest.MonkeyPatch, data: LabeledTexts
) -> tuple[dict[str, float], dict[str, float], list[dict[str, Any]]]:
    """Validation scores (of seven rows), test scores and predicted rows (of ten) for given outputs."""
    patch.setattr(text_to_text, "decode", Script(task, written))
    trainer = make_trainer(Path(str(data.files["train"])).parent)
    validated = dict(trainer.validate(task, datamodule=data, verbose=False)[0])
    tested = dict(trainer.test(task, datamodule=data, verbose=False)[0])
    rows = [row for batch in trainer.predict(task, datamodule=data) or [] for row in batch]  # type: ignore[union-attr]
    return validated, tested, sorted(rows, key=lambda row: row["row"])


# rows are Thai, Italian, French (2, 1, 0) again and again
WRITTEN = ["2", "1", "0", "1", "0", "", "x", "1", "zero", "2"]
ANSWERS = ["Thai", "Italian", "French", "Italian", "French", None, None, "Italian", None, "Thai"]


def test_unreadable_outputs_are_wrong_and_counted(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, data = make_writer(t5_folder, LABELS), make_labeled_data(tmp_path)
    validated, tested, rows = scripted(task, WRITTEN, monkeypatch, data)
    assert [row["label"] for row in rows] == ANSWERS
    assert [row["output"] for row in rows] == WRITTEN
    assert [row["reference"] for row in rows] == ["Thai", "Italian", "French"] * 3 + ["Thai"]
    assert all(sum(row["scores"].values()) == pytest.approx(1, abs=3e-6) for row in rows)
    assert tested == {"test_accuracy": pytest.approx(5 / 10)}
    assert validated["val_accuracy"] == validated["val_score"] == pytest.approx(3 / 7)
    assert validated["val_unreadable"] == 2
    assert task.details["unreadable"] == 3
    assert task.details["confusion"] == [[1, 0, 0, 2], [1, 2, 0, 0], [0, 1, 2, 1]]  # the last column: unreadable


def test_two_class_mnli_is_the_authors_rule(t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gold 2, and whatever is written but ``1``, is class 0 there."""
    task, data = make_writer(t5_folder, LABELS, two_class_mnli=True), make_labeled_data(tmp_path)
    _, tested, rows = scripted(task, WRITTEN, monkeypatch, data)
    gold = np.array([LABELS.index(row["reference"]) for row in rows])
    gold[gold == 2] = 0
    said = np.array([1 if text == "1" else 0 for text in WRITTEN])
    assert tested["test_two_class_accuracy"] == pytest.approx((gold == said).mean())
    assert tested["test_two_class_accuracy"] == pytest.approx(8 / 10)
    assert "test_accuracy" not in tested
    assert [row["label"] for row in rows] == ANSWERS  # what is written to the file stays as it is
    assert task.details["unreadable"] == 3


def test_a_number_that_cannot_be_read_is_0(t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = ["1.0", "0.3", "x", "0.9", "", "-0.5", "2", "0.4", "nan", "1.0"]
    task = make_writer(t5_folder, metrics=["mse", "pearson"])
    data = make_labeled_data(tmp_path, regression=True)
    validated, tested, rows = scripted(task, outputs, monkeypatch, data)
    said = np.array([1.0, 0.3, 0.0, 0.9, 0.0, -0.5, 2.0, 0.4, 0.0, 1.0])
    true = np.array([1.0, 0.3, -0.5] * 3 + [1.0])
    assert tested["test_mse"] == pytest.approx(((said - true) ** 2).mean(), rel=1e-5)
    assert tested["test_pearson"] == pytest.approx(np.corrcoef(said, true)[0, 1], rel=1e-5)
    assert task.details == {"unreadable": 3}
    assert validated["val_unreadable"] == 2
    assert validated["val_mse"] == pytest.approx(((said - true)[:7] ** 2).mean(), rel=1e-5)
    assert validated["val_score"] == -validated["val_mse"]  # the largest is the best
    assert [row["label"] for row in rows if row["label"] is None] == [None] * 3
    assert "scores" not in rows[0]


@pytest.mark.parametrize("targets", ["number", "name"])
def test_label_scores_are_the_probabilities_of_writing_them(targets: Any, t5_folder: Path, tmp_path: Path) -> None:
    names = ["ab", "cd", "xyz"]
    task = make_writer(t5_folder, names, targets=targets)
    task.backbone.lm_head.weight.data.mul_(0.05)  # a random model is else sure of itself
    batch = train_batch(task, tmp_path)
    likelihoods = []
    for text in names if targets == "name" else ["0", "1", "2"]:
        tokens = len(task.tokenizer(text)["input_ids"]) + 1
        likelihoods.append([-tokens * loss for loss in row_losses(task, batch, [text] * 7)])
    joint = np.exp(np.array(likelihoods).T)
    expected = joint / joint.sum(1, keepdims=True)
    assert (expected[:, :2] > 0.05).all()
    torch.testing.assert_close(task.label_scores(batch).double(), torch.tensor(expected), atol=1e-6, rtol=1e-4)
    assert (expected.std(0) > 1e-5).all()  # they depend on the text
