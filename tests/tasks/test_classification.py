"""Classification by a head: it learns on every family, and its logits are those of transformers' own classifiers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers import (
    AutoModel,
    BertForSequenceClassification,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
)

from red_lightning.backbones.classification_head import HeadOptions, pool
from red_lightning.backbones.sharding import full_parameters
from red_lightning.callbacks import read_checkpoint
from red_lightning.data import LabeledTexts
from red_lightning.errors import UsageError
from red_lightning.methods import HeadOnly
from red_lightning.tasks import Classification, ClassifierTask, DataToText, TextToTextClassification
from red_lightning.tasks.checkpoint_identity import RECORD
from tests.backbones_zoo import build_tokenizer, save_backbone
from tests.labeled import (
    CLASSIFIERS,
    configured_classifier,
    make_classifier,
    make_labeled_data,
    plain_head,
    tokens_of,
    train_batch,
)
from tests.training import make_trainer


@pytest.mark.parametrize("regression", [False, True], ids=["classes", "numbers"])
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_every_family_learns(family: str, regression: bool, tmp_path: Path) -> None:
    folder = save_backbone(family, tmp_path / family)
    task = make_classifier(folder, learning_rate=3e-2, head=HeadOptions(dropout=0.1))
    data = make_labeled_data(tmp_path, 9, global_batch_size=9, regression=regression)
    trainer = make_trainer(tmp_path, max_epochs=30, limit_val_batches=0, callbacks=[], enable_checkpointing=False)
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 30
    batch = train_batch(task, tmp_path, 9, regression=regression)
    with torch.no_grad():
        logits = task.eval()(batch["input_ids"], batch["attention_mask"])
    if regression:  # a constant would err by the variance
        assert mse_loss(task.answers(batch).values, batch["labels"]) < 0.5 * batch["labels"].var(correction=0)
    else:
        assert logits.argmax(1).tolist() == batch["labels"].tolist()
        assert cross_entropy(logits, batch["labels"]) < 0.3  # without learning log 3


@pytest.mark.parametrize("family", CLASSIFIERS)
@torch.no_grad()
def test_logits_do_not_depend_on_padding_or_batch_mates(family: str, tmp_path: Path) -> None:
    task = configured_classifier(save_backbone(family, tmp_path / family))
    batch = train_batch(task, tmp_path)
    together = task(batch["input_ids"], batch["attention_mask"])
    rows = tokens_of(batch)
    assert len({row.shape for row in rows}) > 2
    alone = torch.cat([task(row, torch.ones_like(row)) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (alone.std(0) > 1e-3).all()  # the texts are told apart at all
    garbage = batch["input_ids"].where(batch["attention_mask"].bool(), torch.tensor(7))
    torch.testing.assert_close(task(garbage, batch["attention_mask"]), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
@pytest.mark.parametrize("family", ["roberta", "llama"])
@torch.no_grad()
def test_every_pooling_in_a_padded_batch(family: str, pooling: str, tmp_path: Path) -> None:
    """Against the plain backbone's hidden states, row by row, without padding."""
    folder = save_backbone(family, tmp_path / family)
    options = plain_head(pooling=pooling)
    task = configured_classifier(folder, method=HeadOnly(), head=options)
    batch = train_batch(task, tmp_path)
    plain = AutoModel.from_pretrained(folder).eval()
    take = {"first": lambda x: x[:, 0], "mean": lambda x: x.mean(1), "last": lambda x: x[:, -1]}[pooling]
    pooled = torch.cat([take(plain(input_ids=row).last_hidden_state) for row in tokens_of(batch)])
    weights = task.head.out_proj  # type: ignore[union-attr]
    expected = pooled @ weights.weight.T + weights.bias
    torch.testing.assert_close(task(batch["input_ids"], batch["attention_mask"]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_a_decoder_takes_the_last_token(family: str, tmp_path: Path) -> None:
    task = configured_classifier(save_backbone(family, tmp_path / family))
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = task(ids, torch.ones_like(ids))
    for position in range(4):  # every token counts, above all the last
        other = ids.clone()
        other[0, position] = 99
        assert not torch.allclose(task(other, torch.ones_like(ids)), logits, atol=1e-4)


def own(kind: type[PreTrainedModel], folder: Path, labels: int, **options: Any) -> Any:
    """transformers' own classifier on the same backbone; its own layers are random."""
    torch.manual_seed(5)
    return kind.from_pretrained(folder, num_labels=labels, **options).eval()


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize(
    ("family", "kind"), [("gpt2", GPT2ForSequenceClassification), ("llama", LlamaForSequenceClassification)]
)
@torch.no_grad()
def test_a_decoder_with_a_projection_is_transformers_classifier(
    family: str, kind: type[PreTrainedModel], labels: int, tmp_path: Path
) -> None:
    folder = save_backbone(family, tmp_path / family)
    theirs = own(kind, folder, labels, pad_token_id=1)
    task = configured_classifier(folder, labels if labels > 1 else 0, method=HeadOnly())
    task.head.out_proj.weight.copy_(theirs.score.weight)  # type: ignore[union-attr]
    task.head.out_proj.bias.zero_()  # type: ignore[union-attr]
    batch = train_batch(task, tmp_path)
    expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits = task(batch["input_ids"], batch["attention_mask"])
    assert logits.shape == (7, labels)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("segments", [False, True])
@torch.no_grad()
def test_bert_with_its_pooler_is_transformers_classifier(segments: bool, tmp_path: Path) -> None:
    folder = save_backbone("bert", tmp_path / "bert")
    theirs = own(BertForSequenceClassification, folder, 3)
    task = configured_classifier(folder, method=HeadOnly())
    task.head.out_proj.load_state_dict(theirs.classifier.state_dict())  # type: ignore[union-attr]
    batch = train_batch(task, tmp_path)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if segments:  # the texts of a pair are told apart
        generator = torch.Generator().manual_seed(0)
        batch["token_type_ids"] = torch.randint(2, ids.shape, generator=generator)
    types = batch.get("token_type_ids")
    expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
    torch.testing.assert_close(task(ids, mask, types), expected, atol=1e-6, rtol=0)
    assert torch.equal(task(ids, mask, types), task(ids, mask)) != segments
    torch.testing.assert_close(
        task.loss(batch), cross_entropy(expected, batch["labels"], reduction="none"), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("labels", [1, 3])
@torch.no_grad()
def test_roberta_with_the_papers_head_is_transformers_classifier(labels: int, tmp_path: Path) -> None:
    folder = save_backbone("roberta", tmp_path / "roberta")
    theirs = own(RobertaForSequenceClassification, folder, labels)
    task = configured_classifier(folder, labels if labels > 1 else 0, method=HeadOnly())
    task.head.load_state_dict(theirs.classifier.state_dict())  # type: ignore[union-attr]
    batch = train_batch(task, tmp_path, regression=labels == 1)
    output = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    torch.testing.assert_close(task(batch["input_ids"], batch["attention_mask"]), output.logits, atol=1e-6, rtol=0)
    assert task.loss(batch).mean().item() == pytest.approx(output.loss.item(), rel=1e-5)
    answers = task.answers(batch)
    if labels == 1:
        torch.testing.assert_close(answers.values, output.logits[:, 0], atol=1e-6, rtol=0)
        assert answers.scores is None
    else:
        assert answers.values.tolist() == output.logits.argmax(1).tolist()
        exponents = output.logits.double().exp()
        probabilities: Tensor = exponents / exponents.sum(1, keepdim=True)
        torch.testing.assert_close(answers.scores, probabilities.float(), atol=1e-6, rtol=0)


def test_the_pooler_needs_its_weights(tmp_path: Path) -> None:
    """This RoBERTa was saved without, as a language model is; random numbers would stand in."""
    task = make_classifier(save_backbone("roberta", tmp_path), head=HeadOptions("pooler"))
    task.take_labels(["a", "b"], ["accuracy"])
    with pytest.raises(UsageError, match=r"has no pretrained pooler; choose model\.head\.pooling"):
        task.configure_model()


def test_backbones_that_cannot_be_read_this_way_are_refused(t5_folder: Path, tmp_path: Path) -> None:
    task = make_classifier(t5_folder)
    with pytest.raises(UsageError, match=r"is an encoder-decoder \(t5\).*use TextToTextClassification"):
        make_trainer(tmp_path).fit(task, datamodule=make_labeled_data(tmp_path))
    distilbert = make_classifier(save_backbone("distilbert", tmp_path / "distilbert"), head=HeadOptions("pooler"))
    with pytest.raises(UsageError, match="no pooler"):
        make_trainer(tmp_path).fit(distilbert, datamodule=make_labeled_data(tmp_path))


def test_a_task_has_a_head_if_it_builds_one() -> None:
    """HeadOnly trains in a user's own task with a head, which need not extend ``Classification``."""

    class Ranking(ClassifierTask):
        def build_head(self, meta: bool = False) -> None:
            self.head = torch.nn.Linear(8, 1)

    assert Ranking.has_head() and HeadOnly.limit(None, Ranking.has_head()) == ""
    assert Classification.has_head() and not TextToTextClassification.has_head() and not DataToText.has_head()


def test_numbers_are_learned_standardised_and_come_back_in_their_unit(tmp_path: Path) -> None:
    folder = save_backbone("gpt2", tmp_path / "gpt2")
    prices = [100_000.5 + 9_000 * (number % 7) for number in range(40)]
    lines = [f"house {number},{price}" for number, price in enumerate(prices)]
    (tmp_path / "prices.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    task, data = make_classifier(folder), LabeledTexts(str(tmp_path / "prices.csv"), max_length=32)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(task, datamodule=data)
    trained = torch.tensor([row["label"] for row in data._encoded["train"]], dtype=torch.float64)
    assert task.target_scale == pytest.approx((trained.mean().item(), trained.std(correction=0).item()))
    assert data.metrics == ["pearson", "spearman", "rmse", "mae"]
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        logits = task.eval()._logits(batch)[:, 0].double()
        mean, deviation = task.target_scale
        expected = ((logits - (batch["labels"].double() - mean) / deviation) ** 2).float()
        assert torch.allclose(task.loss(batch), expected, rtol=1e-4)
        values = task.answers(batch).values
        assert torch.allclose(values.double(), logits * deviation + mean, rtol=1e-6)
        learned = full_parameters(task)
        kept = task.in_original_units(learned)
        assert kept.keys() == learned.keys() and task.head is not None
        head = copy.deepcopy(task.head)
        head.load_state_dict({name.removeprefix("head."): t for name, t in kept.items() if name.startswith("head.")})
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        pooled = pool(task.backbone(**inputs), batch["attention_mask"], task.head_options.pooling)
        assert torch.allclose(head(pooled)[:, 0], values, rtol=1e-5)
    again = make_classifier(folder)
    again.recall(read_checkpoint(tmp_path / "checkpoints/last.ckpt")[RECORD])
    assert again.target_scale == task.target_scale
    again.recall({"labels": []})  # a checkpoint of 0.1.0
    assert again.target_scale == (0.0, 1.0)


def test_equal_numbers_are_nothing_to_learn(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t{n},2.5\n" for n in range(20)), encoding="utf-8")
    data = LabeledTexts(str(tmp_path / "a.csv"))
    data.connect(build_tokenizer(), False)
    with pytest.raises(UsageError, match=r"have the label 2\.5; there is nothing to learn"):
        data.setup("fit")
