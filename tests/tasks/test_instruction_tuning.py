"""Instruction tuning: its loss against other formulas, what it answers, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy

from red_lightning import RED
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.callbacks import PredictionWriter
from red_lightning.data.collation import IGNORED
from red_lightning.errors import UsageError
from red_lightning.generation import FOR_E2E, FOR_INSTRUCTIONS, Decoding
from red_lightning.tasks import InstructionTuning
from tests.backbones_zoo import FAMILIES, MASKED, save_backbone
from tests.conversations import Conversations, tuning
from tests.training import make_data, make_trainer

DECODERS = [family for family in FAMILIES if family not in MASKED and family != "t5"]


def configured(backbone: Path, **options: Any) -> InstructionTuning:
    """A task in evaluation mode whose vectors are random."""
    task = tuning(backbone, **options)
    task.configure_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in task.trainable_parameters().values():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return task.eval()


def batch_of(task: InstructionTuning, split: str = "train", **options: Any) -> dict[str, Any]:
    """The first batch of a split."""
    data = Conversations(**{"global_batch_size": 7, **options})
    data.connect(task.tokenizer, False)
    data.setup({"train": "fit", "validation": "fit"}.get(split, split))
    loader = {"train": data.train_dataloader, "predict": data.predict_dataloader, "test": data.test_dataloader}[split]
    return next(iter(loader()))


def plain_losses(task: InstructionTuning, batch: dict[str, Any]) -> list[Tensor]:
    """The losses of the labels of each row, from all logits of that row alone."""
    losses = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids, labels = ids[mask.bool()], labels[mask.bool()]
        logits = task.backbone(input_ids=ids[None], use_cache=False).logits[0, :-1]
        known = labels[1:] != IGNORED
        losses.append(cross_entropy(logits[known].double(), labels[1:][known], reduction="none"))
    return losses


@pytest.mark.parametrize("loss_on", ["answer", "all"])
@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_the_loss_is_that_of_all_logits(family: str, loss_on: str, tmp_path: Path) -> None:
    task = configured(save_backbone(family, tmp_path, dropout=0.0))
    options = {"max_length": 64} if family == "opt" else {}  # its positions
    batch = batch_of(task, loss_on=loss_on, **options)
    losses, counted = task.token_losses(batch)
    assert losses.dtype == torch.float32
    expected = plain_losses(task, batch)
    for row, labels, known in zip(losses, counted, expected, strict=True):
        torch.testing.assert_close(row[labels].double(), known, rtol=1e-5, atol=1e-5)
        assert not row[~labels].any()
    assert losses.sum().item() == pytest.approx(torch.cat(expected).sum().item(), rel=1e-6)
    mean = losses.sum() / counted.sum()
    own = task.backbone(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    assert mean.item() == pytest.approx(own.item(), rel=1e-6)  # transformers' own


def test_logits_are_computed_where_a_label_follows_only(llama_folder: Path) -> None:
    task = configured(llama_folder)
    batch = batch_of(task)
    task.token_losses(batch)  # compares its ways, once
    shapes: list[torch.Size] = []
    task.backbone.lm_head.register_forward_hook(lambda _, __, output: shapes.append(output.shape))
    losses, _ = task.token_losses(batch)
    labels = int((batch["labels"] != IGNORED).sum())
    assert [tuple(shape) for shape in shapes] == [(7, 0, 300), (labels, 300)]
    assert losses.shape == batch["labels"].shape


@torch.no_grad()
def test_a_model_that_takes_no_positions_gives_all_logits(llama_folder: Path) -> None:
    task = configured(llama_folder)
    batch = batch_of(task)
    task.backbone.config.model_type = "unheard_of"  # nor is it known what its head does
    expected = task.token_losses(batch)[0]
    forward = task.backbone.forward
    task.backbone.forward = lambda input_ids, attention_mask, use_cache: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
    )
    torch.testing.assert_close(task.token_losses(batch)[0], expected)


def test_a_batch_of_fillers_trains_nothing(llama_folder: Path) -> None:
    """A process that has no row left takes the step with the others."""
    task = configured(llama_folder)
    batch = batch_of(task)
    batch["labels"].fill_(IGNORED)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch.pop("step_weight")
    loss = task.training_step(batch, 0)
    assert loss.item() == 0
    loss.backward()
    assert all(not p.grad.any() for p in task.trainable_parameters().values() if p.grad is not None)


def test_validation_is_per_label_whatever_the_batches(llama_folder: Path, tmp_path: Path) -> None:
    found = []
    for size in (1, 2, 5):
        task = configured(llama_folder)
        data = Conversations(eval_batch_size=size)
        found += make_trainer(tmp_path).validate(task, datamodule=data, verbose=False)
    with torch.no_grad():
        expected = torch.cat([loss for batch in data.val_dataloader() for loss in plain_losses(task, batch)]).mean()
    for scores in found:
        assert scores["val_loss"] == pytest.approx(expected.item(), rel=1e-6)
        assert scores["val_perplexity"] == pytest.approx(expected.exp().item(), rel=1e-5)


def test_a_test_gives_the_perplexity_and_each_rows_loss(llama_folder: Path, tmp_path: Path) -> None:
    task, data = configured(llama_folder), Conversations()
    trainer = make_trainer(tmp_path, callbacks=[PredictionWriter()])
    (scores,) = trainer.test(task, datamodule=data, verbose=False)
    rows = [json.loads(line) for line in (tmp_path / "test_predictions.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    with torch.no_grad():
        expected = {}
        for batch in data.test_dataloader():
            expected.update(zip(batch["row"], plain_losses(task, batch), strict=True))
    for row in rows:
        assert row["tokens"] == len(expected[row["row"]])
        assert row["loss"] == pytest.approx(expected[row["row"]].mean().item(), rel=1e-5)
    mean = torch.cat(list(expected.values())).mean()
    assert scores == {
        "test_loss": pytest.approx(mean.item(), rel=1e-6),
        "test_perplexity": pytest.approx(mean.exp().item(), rel=1e-5),
    }
    assert task.metric_names == ["perplexity", "loss"]


def test_a_test_before_the_fit_changes_nothing(llama_folder: Path, tmp_path: Path) -> None:
    """As ``run.baseline`` does it: Lightning tests in inference mode, and validates within a fit without."""
    losses = []
    for before in (False, True):
        task, data = tuning(llama_folder), Conversations()
        trainer = make_trainer(tmp_path / str(before), max_epochs=1, num_sanity_val_steps=1)
        if before:
            trainer.test(task, datamodule=data, verbose=False)
        trainer.fit(task, datamodule=data)
        losses.append(trainer.callback_metrics["val_loss"])
    assert losses[0] == losses[1]


def test_fillers_are_scored_nowhere(llama_folder: Path) -> None:
    task = configured(llama_folder)
    batch = batch_of(task, "test", eval_batch_size=4)
    batch["row"][1], batch["labels"][1] = -1, IGNORED
    rows = task.test_step(batch, 0)["rows"]
    assert sorted(row["row"] for row in rows) == sorted(row for row in batch["row"] if row >= 0)
    assert task.mean_loss.labels == (batch["labels"] != IGNORED).sum()
    asked = batch_of(task, "predict")
    asked["row"][0] = -1
    assert [row["row"] for row in task.predict_step(asked, 0)] == asked["row"][1:]


def test_answers_are_greedy_and_end_at_the_templates_stop(llama_folder: Path, tmp_path: Path) -> None:
    task, data = configured(llama_folder), Conversations()
    trainer = make_trainer(tmp_path, callbacks=[PredictionWriter()])
    trainer.predict(task, datamodule=data, return_predictions=False)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"row", "prompt", "answer"}] * 3
    tokenizer = task.tokenizer
    prompts = {number: batch for batch in data.predict_dataloader() for number in batch["row"]}
    for row in rows:
        batch = prompts[row["row"]]
        index = batch["row"].index(row["row"])
        ids = batch["input_ids"][index][batch["attention_mask"][index].bool()][None]
        answer = task.backbone.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            repetition_penalty=1.1,
            no_repeat_ngram_size=5,
            max_new_tokens=6,
            pad_token_id=1,
        )
        assert row["prompt"] == batch["text"][index]
        assert row["answer"] == tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True).strip()
    task.stop_ids = [int(answer[0, ids.shape[1]])]
    assert task({"input_ids": ids, "attention_mask": torch.ones_like(ids)}) == [tokenizer.decode(task.stop_ids).strip()]


def test_the_default_decoding_is_greedy_and_the_papers_config_has_its_own(llama_folder: Path) -> None:
    assert InstructionTuning(str(llama_folder), RED()).decoding == Decoding(
        num_beams=1,
        length_penalty=1.0,
        no_repeat_ngram_size=0,
        repetition_penalty=1.0,
        max_new_tokens=768,
        stop_at_blank_line=False,
    )
    configs = Path(__file__).parents[2] / "configs"
    for name, expected in (("llama2_ultrafeedback", FOR_INSTRUCTIONS), ("gpt2_medium_e2e", FOR_E2E)):
        config = yaml.safe_load((configs / f"{name}.yaml").read_text(encoding="utf-8"))
        assert Decoding(**{"length_penalty": 1.0, **config["model"]["init_args"]["decoding"]}) == expected


def test_an_answer_ends_with_the_positions(gpt2_folder: Path) -> None:
    """The tiny GPT-2 has 256; in validation no prompt is refused."""
    task = configured(gpt2_folder, decoding=Decoding(1, max_new_tokens=100, no_repeat_ngram_size=0))
    ids, calls = torch.full((1, 250), 7), []
    task({"input_ids": ids, "attention_mask": torch.ones_like(ids)})  # compares its ways, once
    task.backbone.register_forward_hook(lambda *_: calls.append(1))
    task({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert len(calls) == 7  # the last token is not read


def test_an_answer_does_not_depend_on_its_neighbours_prompt(gpt2_folder: Path) -> None:
    """Each has the room that its own prompt leaves."""
    task = configured(gpt2_folder, decoding=Decoding(1, max_new_tokens=60, no_repeat_ngram_size=0))
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(10, 300, (3, 240), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :200], mask[2, :235] = 0, 0
    answers = task({"input_ids": ids, "attention_mask": mask})
    alone = [task({"input_ids": ids[row : row + 1], "attention_mask": mask[row : row + 1]})[0] for row in range(3)]
    assert answers == alone
    assert len(answers[0]) > len(answers[1]) > 0


def refusal(task: Any, stage: str, folder: Path, data: Any) -> str:
    with pytest.raises(UsageError) as caught:
        trainer = make_trainer(folder, max_steps=1)
        getattr(trainer, stage)(task, datamodule=data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused(gpt2_folder: Path, t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is an encoder-decoder \(t5\), .*; use DataToText$"):
        tuning(t5_folder)
    assert "data.max_length is 300, but the backbone" in refusal(
        tuning(gpt2_folder), "fit", tmp_path, Conversations(max_length=300)
    )
    long = Conversations(max_length=300)
    long.read = lambda split: [  # type: ignore[method-assign]
        {"messages": [{"role": "user", "content": "why " * 300}], "row": 0, "where": "row 0"}
    ]
    assert "the longest prompt has 1" in refusal(tuning(gpt2_folder), "predict", tmp_path, long)
    endless = tuning(gpt2_folder, decoding=Decoding(1, max_new_tokens=1000, stop_at_blank_line=False))
    make_trainer(tmp_path, callbacks=[PredictionWriter()]).predict(endless, datamodule=Conversations())  # it is cut
    make_trainer(tmp_path).validate(tuning(gpt2_folder), datamodule=Conversations(), verbose=False)
    assert "cannot read the data module TextPairs; it reads UltraFeedback or Instructions" in refusal(
        tuning(gpt2_folder), "fit", tmp_path, make_data(tmp_path)
    )
    opt = save_backbone("opt", tmp_path / "opt")
    assert "data.packing is true, but the model family 'opt'" in refusal(
        tuning(opt), "fit", tmp_path, Conversations(max_length=64, packing=True)
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_gradient_checkpointing_changes_no_gradient(family: str, tmp_path: Path) -> None:
    """With dropout, which is drawn again in the backward pass, and a frozen embedding."""
    folder = save_backbone(family, tmp_path / family, dropout=0.1)
    gradients = []
    for checkpointing in (False, True):
        task = configured(folder, backbone_options=BackboneOptions(gradient_checkpointing=checkpointing)).train()
        batch, passes = batch_of(task), [0]
        task.token_losses(batch)  # compares its ways, once

        def count(*_: Any, passes: list[int] = passes) -> None:
            passes[0] += 1

        block = next(module for name, module in task.backbone.named_modules() if name.endswith(".1"))
        next(block.children()).register_forward_hook(count)
        torch.manual_seed(3)
        task.token_losses(batch)[0].sum().backward()
        assert passes[0] == 1 + checkpointing
        gradients.append({name: p.grad for name, p in task.trainable_parameters().items()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert all(gradient.any() for gradient in gradients[1].values())


def test_a_backbone_that_cannot_checkpoint_is_refused(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match=r"does not support (gradient|activation) checkpointing"):
        tuning(llama_folder, backbone_options=BackboneOptions(gradient_checkpointing=True)).configure_model()
