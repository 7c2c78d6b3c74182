"""What a classifier says: its scores by numpy, its rows, its checkpoints and edits, and what it refuses."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from red_lightning.data import LabeledTexts
from red_lightning.errors import UsageError
from red_lightning.tasks import Classification
from tests.backbones_zoo import save_backbone
from tests.labeled import configured_classifier, make_classifier, make_labeled_data, tokens_of
from tests.training import make_data, make_task, make_trainer

METRICS = ["matthews", "f1", "macro_f1", "accuracy"]


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return save_backbone("roberta", tmp_path / "roberta")


def answered(
    task: Classification, data: LabeledTexts, folder: Path
) -> tuple[dict[str, float], dict[str, float], list[dict[str, Any]]]:
    """Validation scores, test scores and predicted rows of a task whose edits and head are random."""
    trainer = make_trainer(folder)
    validated = dict(trainer.validate(task, datamodule=data, verbose=False)[0])
    shaken = copy.deepcopy(task.state_dict())
    tested = dict(trainer.test(task, datamodule=data, verbose=False)[0])
    assert all(torch.equal(value, shaken[name]) for name, value in task.state_dict().items())
    rows = [row for batch in trainer.predict(task, datamodule=data) or [] for row in batch]  # type: ignore[union-attr]
    return validated, tested, sorted(rows, key=lambda row: row["row"])


def expected_scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of two classes, from the four counts."""
    true = np.array([row["reference"] == "Thai" for row in rows])
    said = np.array([row["label"] == "Thai" for row in rows])
    tp, fp, fn, tn = ((true & said).sum(), (~true & said).sum(), (true & ~said).sum(), (~true & ~said).sum())
    f1, other = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "matthews": (tp * tn - fp * fn) / root,
        "f1": f1,
        "macro_f1": (f1 + other) / 2,
        "accuracy": (tp + tn) / len(rows),
    }


@torch.no_grad()
def balance(task: Classification, data: LabeledTexts) -> None:
    """Shift the head so that three tenths of the test rows are taken for class 1."""
    assert task.head is not None
    tokens = [task.tokenizer(row["text"], return_tensors="pt")["input_ids"] for row in data.read("test")]
    logits = torch.cat([task.eval()(ids, torch.ones_like(ids)) for ids in tokens])
    margins = (logits[:, 1] - logits[:, 0]).sort(descending=True).values
    task.head.out_proj.bias[0] += (margins[2] + margins[3]) / 2


def test_scores_are_those_of_the_predicted_rows(roberta: Path, tmp_path: Path) -> None:
    task = make_classifier(roberta, metrics=METRICS)
    task.take_labels(["Italian", "Thai"], ["accuracy"])
    task.configure_model()
    data = make_labeled_data(tmp_path, classes=2)
    balance(task, data)
    validated, tested, rows = answered(task, data, tmp_path)
    expected = expected_scores(rows)
    assert 0 < expected["accuracy"] < 1
    assert len({round(score, 3) for score in expected.values()}) == 4
    assert tested == pytest.approx({f"test_{name}": score for name, score in expected.items()}, abs=1e-6)
    assert set(validated) == {"val_loss", "val_score", *(f"val_{name}" for name in METRICS)}
    assert validated["val_score"] == validated["val_matthews"]
    assert task.labels is not None
    counts = [[sum(r["reference"] == t and r["label"] == p for r in rows) for p in task.labels] for t in task.labels]
    assert [row[:2] for row in task.details["confusion"]] == counts
    assert task.details["labels"] == ["Italian", "Thai"]
    assert task.details["per_class"]["Thai"]["f1"] == pytest.approx(expected["f1"])
    assert task.details["per_class"]["Thai"]["support"] == 5


@pytest.mark.parametrize(("given", "expected"), [(None, ["accuracy", "macro_f1"]), (["macro_f1"], ["macro_f1"])])
def test_the_first_metric_chooses(given: list[str] | None, expected: list[str], roberta: Path, tmp_path: Path) -> None:
    task = make_classifier(roberta, metrics=given)
    (scores,) = make_trainer(tmp_path).validate(task, datamodule=make_labeled_data(tmp_path), verbose=False)
    assert task.metric_names == expected
    assert set(scores) == {"val_loss", "val_score", *(f"val_{name}" for name in expected)}
    assert scores["val_score"] == scores[f"val_{expected[0]}"]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_rows_are_what_the_model_says_of_each_text_alone(family: str, tmp_path: Path) -> None:
    folder = save_backbone(family, tmp_path / family)
    task = configured_classifier(folder)
    data = make_labeled_data(tmp_path)
    _, _, rows = answered(task, data, tmp_path)
    assert data.cut["predict"] == 0
    assert [row["row"] for row in rows] == list(range(10))
    given = [row["text"] for row in data.read("test")]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, text in zip(rows, given, strict=True):
        assert set(row) == {"row", "text", "label", "scores", "reference"}
        assert row["text"] == text
        assert row["reference"] == text.split()[0]  # the food
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = task(ids, torch.ones_like(ids))[0].double().numpy()
        probabilities = np.exp(logits) / np.exp(logits).sum()
        assert list(row["scores"]) == ["French", "Italian", "Thai"]
        assert list(row["scores"].values()) == pytest.approx(probabilities.tolist(), abs=2e-6)
        assert sum(row["scores"].values()) == pytest.approx(1, abs=2e-6)
        assert row["label"] == ["French", "Italian", "Thai"][int(logits.argmax())]


def test_numbers(roberta: Path, tmp_path: Path) -> None:
    task = configured_classifier(roberta, 0)
    data = make_labeled_data(tmp_path, regression=True)
    _, tested, rows = answered(task, data, tmp_path)
    assert set(rows[0]) == {"row", "text", "label", "reference"}
    said, true = ([row[key] for row in rows] for key in ("label", "reference"))
    assert true == pytest.approx([{"Thai": 1.0, "Italian": 0.3, "French": -0.5}[r["text"].split()[0]] for r in rows])
    assert tested == {"test_pearson": pytest.approx(np.corrcoef(said, true)[0, 1], abs=1e-4)}
    assert task.details == {}


def test_the_validation_loss_is_per_row_whatever_the_batches(roberta: Path, tmp_path: Path) -> None:
    losses = []
    for size in (1, 3, 7):
        task = configured_classifier(roberta)
        data = make_labeled_data(tmp_path, eval_batch_size=size)
        losses.append(make_trainer(tmp_path).validate(task, datamodule=data, verbose=False)[0]["val_loss"])
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        logits = [task.eval()(row, torch.ones_like(row))[0].double().numpy() for row in tokens_of(batch)]
    rows = [math.log(np.exp(x).sum()) - x[label] for x, label in zip(logits, batch["labels"], strict=True)]
    assert losses == pytest.approx([np.mean(rows)] * 3, rel=1e-5)


def test_what_is_no_number_shows(roberta: Path, tmp_path: Path) -> None:
    for regression in (False, True):
        task = configured_classifier(roberta, 0 if regression else 3)
        task.head.out_proj.bias.data.fill_(math.nan)  # type: ignore[union-attr]
        data = make_labeled_data(tmp_path, regression=regression)
        validated = make_trainer(tmp_path).validate(task, datamodule=data, verbose=False)[0]
        assert math.isnan(validated["val_loss"])
        assert math.isnan(validated["val_score"]) == regression
        with pytest.raises(UsageError, match=r"no numbers, the last at step 4"):
            make_trainer(tmp_path).fit(task, datamodule=data)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "number metric": ({"metrics": ["pearson"]}, {}, "'pearson' measures numbers, but the labels are classes"),
    "class metric": ({"metrics": ["accuracy"]}, {"regression": True}, "'accuracy' measures classes, .* are numbers"),
    "f1 of three": ({"metrics": ["f1"]}, {}, "'f1' needs two classes, but there are 3"),
    "unknown metric": ({"metrics": ["acuracy"]}, {}, "unknown metric 'acuracy': did you mean 'accuracy'"),
    "too long": ({}, {"max_length": 65}, r"data\.max_length is 65, but the backbone '.*' has 64 positions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_data_is_refused(name: str, roberta: Path, tmp_path: Path) -> None:
    options, data, complaint = REFUSED[name]
    task = make_classifier(roberta, **options)
    with pytest.raises(UsageError, match=complaint):
        make_trainer(tmp_path).fit(task, datamodule=make_labeled_data(tmp_path, **data))


def test_every_position_can_be_used(roberta: Path, tmp_path: Path) -> None:
    task, data = make_classifier(roberta), make_labeled_data(tmp_path, max_length=64)
    (tmp_path / "long.txt").write_text("Thai food " * 60, encoding="utf-8")
    data.predict_file = str(tmp_path / "long.txt")
    task.recall({"labels": ["French", "Italian", "Thai"]})
    ((row,),) = make_trainer(tmp_path).predict(task, datamodule=data) or []  # type: ignore[misc]
    assert data.cut["predict"] == 1
    assert "reference" not in row


def test_another_kind_of_data_is_refused(roberta: Path, gpt2_folder: Path, tmp_path: Path) -> None:
    sentence = "the task Classification cannot read the data module TextPairs; it reads GLUE or LabeledTexts"
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        make_trainer(tmp_path).fit(make_classifier(roberta), datamodule=make_data(tmp_path))
    sentence = "the task DataToText cannot read the data module LabeledTexts; it reads .*E2E.*"
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        make_trainer(tmp_path).fit(make_task(gpt2_folder), datamodule=make_labeled_data(tmp_path))
