"""Classification as text to text: what is written for a label, what it costs, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from red_lightning import RED
from red_lightning.errors import UsageError
from red_lightning.tasks import TextToTextClassification
from tests.backbones_zoo import save_backbone
from tests.conftest import SHARED
from tests.labeled import LABELS, make_labeled_data, make_writer, row_losses, train_batch
from tests.training import make_data, make_trainer

ORACLE = SHARED / "oracle/forward/t5_ffn.pt"


def written(batch: dict[str, Any], kind: str) -> list[str]:
    """What a row's label is written as, from its text, which begins with the food."""
    foods = [texts["text"].split()[0] for texts in batch["texts"]]
    numbers = {"number": ["0", "1", "2"], "name": LABELS, "decimal": ["-0.5", "0.3", "1.0"]}[kind]
    return [numbers[LABELS.index(food)] for food in foods]


@pytest.mark.parametrize("kind", ["number", "name", "decimal"])
def test_the_loss_is_that_of_writing_the_label(kind: str, t5_folder: Path, tmp_path: Path) -> None:
    options = {"targets": "name", "max_new_tokens": 12} if kind == "name" else {}
    task = make_writer(t5_folder, [] if kind == "decimal" else LABELS, **options)
    batch = train_batch(task, tmp_path, regression=kind == "decimal")
    texts = written(batch, kind)
    assert len(set(texts)) == 3
    with torch.no_grad():
        losses = task.loss(batch)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(row_losses(task, batch, texts), rel=1e-5)
    if kind == "number":  # all targets have as many tokens: the mean is transformers' for the padded batch
        labels = torch.tensor([[*task.tokenizer(text)["input_ids"], 0] for text in texts])
        with torch.no_grad():
            theirs = task.backbone(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
            ).loss
        assert losses.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    else:
        assert len({len(task.tokenizer(text)["input_ids"]) for text in texts}) > 1  # padding does not count


def save_words(folder: Path) -> Path:
    """A T5's configuration, and a tokenizer whose token 17 is the word ``t17``."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = {word: index for index, word in enumerate([*special.values(), *(f"t{index}" for index in range(3, 120))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    T5Config(vocab_size=120).save_pretrained(folder)
    return folder


@pytest.mark.skipif(not ORACLE.is_file(), reason="the reference material is not beside the repository")
@torch.no_grad()
def test_loss_and_output_are_the_authors(tmp_path: Path) -> None:
    expected = torch.load(ORACLE, weights_only=True)
    inputs = expected["inputs"]
    names = [" ".join(f"t{token}" for token in row if token > 1) for row in inputs["labels"].tolist()]
    model = T5ForConditionalGeneration(AutoConfig.for_model(**json.loads(expected["config"])))
    model.load_state_dict(expected["base_state"])
    model.save_pretrained(save_words(tmp_path))
    task = TextToTextClassification(str(tmp_path), RED(), targets="name", max_new_tokens=4)
    task.take_labels(names, ["accuracy"])
    task.configure_model()
    parameters = {name.removeprefix("backbone."): value for name, value in task.trainable_parameters().items()}
    assert len(parameters) == len(expected["delta"])
    for name, value in parameters.items():
        value.copy_(expected["delta"][name.replace("editor.", "delta_vector.activation_")][0])
    batch = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "row": [0, 1, 2]}
    batch["labels"] = torch.arange(3)
    counts = (inputs["labels"] != 0).sum(1)  # the authors' mean is over tokens and skips padding
    loss = (task.eval().loss(batch) * counts).sum() / counts.sum()
    assert loss.item() == pytest.approx(float(expected["loss"]), abs=1e-5)
    outputs = task.answers(batch).outputs
    assert outputs == [" ".join(f"t{token}" for token in row[1:]) for row in expected["generated"].tolist()]
    assert task.answers(batch).values.tolist() == [3, 3, 3]  # none is a label


def test_a_label_that_the_vocabulary_lacks_is_refused(tmp_path: Path) -> None:
    """It would be written as the unknown token, and never be read."""
    task = TextToTextClassification(str(save_words(tmp_path)), RED(), targets="name")
    with pytest.raises(UsageError, match=r"tokenizer cannot write the label 'cat'; use model\.targets number"):
        task.take_labels(["t5", "cat"], ["accuracy"])


def test_training_lowers_the_loss(t5_folder: Path, tmp_path: Path) -> None:
    losses = []
    for rate in (0.0, 0.1):
        task, data = make_writer(t5_folder, learning_rate=rate), make_labeled_data(tmp_path, 9, global_batch_size=9)
        options: dict[str, Any] = {"limit_val_batches": 0, "callbacks": [], "enable_checkpointing": False}
        make_trainer(tmp_path, max_epochs=60 if rate else 1, **options).fit(task, datamodule=data)
        batch = train_batch(task.eval(), tmp_path)
        losses.append(np.mean(row_losses(task, batch, written(batch, "number"))))
    assert losses[1] < 0.6 * losses[0]


REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "long name": (LABELS, {"targets": "name"}, r"a label takes \d+ tokens and EOS, more than model\.max_new_tokens 5"),
    "two classes": (LABELS[:2], {"two_class_mnli": True}, "two_class_mnli is for tasks of three .* this one has 2"),
    "numbers": ([], {"two_class_mnli": True}, "two_class_mnli is for tasks of three classes, but this one has 0"),
    "alike": (["a", "a"], {"targets": "name"}, "writes two labels alike; use model.targets number"),
    "a mean over three": (LABELS, {"two_class_mnli": True, "metrics": ["macro_f1"]}, "'macro_f1' is a mean over three"),
    "special": (["a", "<eos>"], {"targets": "name"}, "cannot write the label '<eos>'; use model.targets number"),
    "metric": (LABELS, {"metrics": ["pearson"]}, "'pearson' measures numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_cannot_be_written_are_refused(name: str, t5_folder: Path) -> None:
    labels, options, complaint = REFUSED[name]
    with pytest.raises(UsageError, match=complaint):
        make_writer(t5_folder, labels, **options)


def test_other_backbones_and_data_are_refused(t5_folder: Path, gpt2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(gpt2\) is no encoder-decoder; use the task Classification, or a T5"):
        make_writer(gpt2_folder)
    with pytest.raises(UsageError, match=r"\(roberta\) is no encoder-decoder"):
        make_writer(save_backbone("roberta", tmp_path / "roberta"))
    with pytest.raises(UsageError, match=r"max_new_tokens is 1, but must be at least 2"):
        make_writer(t5_folder, max_new_tokens=1)
    with pytest.raises(UsageError, match="cannot read the data module TextPairs; it reads GLUE or LabeledTexts"):
        make_trainer(tmp_path).fit(make_writer(t5_folder), datamodule=make_data(tmp_path))


def test_a_checkpoint_that_writes_something_else_is_refused(t5_folder: Path) -> None:
    record = make_writer(t5_folder, ["ab", "cd"], targets="name").record()
    assert record["targets"] == "name"
    with pytest.raises(UsageError, match=r"taught to write each class's name.*give --model\.targets name"):
        make_writer(t5_folder).recall(record)
