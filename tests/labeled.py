"""Tiny labelled data, classification tasks on tiny backbones, and plain passes through their models."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning import RED
from red_lightning.backbones.classification_head import HeadOptions
from red_lightning.data import LabeledTexts
from red_lightning.tasks import Classification, TextToTextClassification
from tests.backbones_zoo import FAMILIES
from tests.training import FOODS, NAMES

CLASSIFIERS = [family for family in FAMILIES if family != "t5"]
LABELS = sorted(FOODS)
NUMBERS = {"French": "-0.5", "Italian": "0.3", "Thai": "1"}


def write_labels(path: Path, count: int, classes: int = 3, regression: bool = False) -> Path:
    """Write ``count`` texts of different lengths as JSONL; the label of each is its food, or a number in its place."""
    lines = []
    for index in range(count):
        food = FOODS[index % classes]
        text = f"{food} food at {NAMES[index % 5]} {index} {'or so ' * (index % 4)}is {food}"
        lines.append(json.dumps({"text": text, "label": NUMBERS[food] if regression else food}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_labeled_data(
    folder: Path, rows: int = 11, classes: int = 3, regression: bool = False, **options: Any
) -> LabeledTexts:
    """Training rows, and other rows for validation and test. The classes are French, Italian (and Thai)."""
    folder.mkdir(parents=True, exist_ok=True)
    train = write_labels(folder / "train.jsonl", rows, classes, regression)
    validation = write_labels(folder / "validation.jsonl", 7, classes, regression)
    test = write_labels(folder / "test.jsonl", 10, classes, regression)
    settings: dict[str, Any] = {"global_batch_size": 2, "eval_batch_size": 3, "max_length": 60}
    return LabeledTexts(str(train), str(validation), str(test), **{**settings, **options})


def make_classifier(backbone: Path, task: type[Classification] = Classification, **options: Any) -> Classification:
    """A task that has not seen its data yet."""
    return task(str(backbone), **{"method": RED(), "learning_rate": 1e-2, **options})


def configured_classifier(backbone: Path, labels: int = 3, **options: Any) -> Classification:
    """A task in evaluation mode whose vectors are random; no labels stands for a regression."""
    task = make_classifier(backbone, **options)
    task.take_labels(LABELS[:labels], ["accuracy"] if labels else ["pearson"])
    task.configure_model()
    shake(task.backbone)
    return task.eval()


def shake(model: nn.Module) -> None:
    """Change what trains at random."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


def train_batch(task: Any, folder: Path, rows: int = 7, **options: Any) -> dict[str, Any]:
    """All training rows as one batch, with padding."""
    data = make_labeled_data(folder, rows, global_batch_size=rows, **options)
    data.connect(task.tokenizer, task.encoder_decoder)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def tokens_of(batch: dict[str, Any]) -> list[Tensor]:
    """The tokens of each row without padding: int64, shape (1, tokens) each."""
    return [ids[mask.bool()][None] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def plain_head(**options: Any) -> HeadOptions:
    """A projection without dropout."""
    return HeadOptions(**{"hidden": False, "dropout": 0.0, **options})


def make_writer(backbone: Path, labels: list[str] | None = None, **options: Any) -> TextToTextClassification:
    """A task; with ``labels`` (none: numbers), in evaluation mode and with random vectors."""
    task = TextToTextClassification(str(backbone), **{"method": RED(), "learning_rate": 1e-2, **options})
    if labels is not None:
        task.take_labels(labels, ["accuracy"] if labels else ["mse"])
        task.configure_model()
        shake(task.backbone)
        task.eval()
    return task


def row_losses(task: TextToTextClassification, batch: dict[str, Any], texts: list[str]) -> list[float]:
    """transformers' own loss of writing a text and EOS, row by row without padding."""
    losses = []
    for ids, text in zip(tokens_of(batch), texts, strict=True):
        tokens = [*task.tokenizer(text)["input_ids"], task.tokenizer.eos_token_id]
        with torch.no_grad():
            losses.append(task.backbone(input_ids=ids, labels=torch.tensor([tokens])).loss.item())
    return losses
