"""Prompt tuning against peft used directly, in every family; and through generation, artefacts and limits."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from red_lightning.errors import UsageError
from red_lightning.methods import PromptTuning
from red_lightning.tasks import Classification, DataToText
from tests.backbones_zoo import FAMILIES, build, save_backbone
from tests.labeled import make_labeled_data
from tests.sequences import (
    INPUT,
    TEXTS,
    check_batch,
    check_cache,
    check_round_trip,
    hidden,
    hooks,
    padded,
    randomise,
    two_steps,
)
from tests.training import make_data, make_task, make_trainer


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_nothing_else_and_detaches(family: str) -> None:
    model = build(family)
    keys, plain = set(model.state_dict()), hidden(model)
    parameters = PromptTuning(5).apply(model)
    (name,) = parameters
    assert name.endswith("virtual_tokens.embeddings")
    prompted = hidden(model)
    assert prompted.shape == plain.shape
    assert not torch.allclose(prompted, plain, atol=1e-3)
    assert two_steps(model, parameters) == {name}
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(hidden(copied), hidden(model))
    PromptTuning(5).detach(model)
    assert torch.equal(hidden(model), plain)
    assert set(model.state_dict()) == keys
    assert hooks(model) == 0
    assert not torch.equal(hidden(copied), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family: str) -> None:
    model = build(family)
    PromptTuning(4).apply(model)
    batch = padded(TEXTS, left=False)
    rows = hidden(model, **{"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    for row, text in enumerate(TEXTS):
        extra = {"decoder_input_ids": INPUT[[row]]} if family == "t5" else {}
        alone = hidden(model, torch.tensor([text]), **extra)[0]
        assert torch.allclose(rows[row, : len(alone)], alone, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "task"),
    [("gpt2", "CAUSAL_LM"), ("llama", "CAUSAL_LM"), ("roberta", "FEATURE_EXTRACTION"), ("t5", "SEQ_2_SEQ_LM")],
)
def test_same_as_peft(family: str, task: str) -> None:
    from peft import PromptTuningConfig, get_peft_model

    ours, config = build(family), PromptTuningConfig(task_type=task, num_virtual_tokens=5)
    wrapped: Any = get_peft_model(build(family), config).eval()
    (embeddings,) = PromptTuning(5).apply(ours).values()
    randomise({"": embeddings})
    wrapped.prompt_encoder["default"].embedding.weight.data[:5] = embeddings.data
    batch = padded(TEXTS, left=False)
    with torch.no_grad():
        theirs = wrapped(**batch, **({"decoder_input_ids": INPUT} if family == "t5" else {}))[0]
    rows = hidden(ours, batch["input_ids"], attention_mask=batch["attention_mask"])
    if family == "t5":
        assert torch.equal(rows, theirs)
    else:
        real = batch["attention_mask"].bool()
        assert torch.equal(rows[real], theirs[:, 5:][real])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "t5"])
def test_generates_in_a_batch_what_it_does_alone(family: str, beams: int) -> None:
    check_batch(PromptTuning(5), family, beams)


def test_steps_with_the_cache_are_those_without() -> None:
    check_cache(PromptTuning(5))


def test_the_pooler_reads_the_text() -> None:
    model: Any = build("bert")
    PromptTuning(5).apply(model)
    with torch.no_grad():
        output = model(input_ids=INPUT)
        assert torch.equal(output.pooler_output, model.pooler(output.last_hidden_state))


def test_other_inputs_are_extended_too() -> None:
    model: Any = build("gpt2")
    PromptTuning(5).apply(model)
    positions = torch.arange(5).expand(3, -1)
    assert torch.equal(hidden(model, position_ids=positions), hidden(model))
    with torch.no_grad():
        states = model(input_ids=INPUT, output_hidden_states=True).hidden_states
        embedded = model(inputs_embeds=model.transformer.wte(INPUT)).logits
        kept = model(input_ids=INPUT, logits_to_keep=torch.tensor([1, 3])).logits
        as_tuple = model(input_ids=INPUT, return_dict=False)[0]
    assert {tuple(state.shape) for state in states} == {(3, 5, 32)}
    assert torch.equal(embedded, hidden(model))
    assert torch.equal(as_tuple, hidden(model))
    assert torch.allclose(kept, hidden(model)[:, [1, 3]])
    bert = build("bert")
    PromptTuning(5).apply(bert)
    assert torch.equal(hidden(bert, token_type_ids=torch.zeros_like(INPUT)), hidden(bert))


def test_a_bfloat16_backbone_learns_in_float32() -> None:
    model: Any = build("llama").bfloat16()
    (embeddings,) = PromptTuning(5).apply(model).values()
    assert embeddings.dtype == torch.float32
    assert model.bfloat16().model.virtual_tokens.embeddings.dtype == torch.float32
    assert hidden(model).dtype == torch.bfloat16
    model(input_ids=INPUT).logits.float().sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.dtype == torch.float32


def test_first_values() -> None:
    model: Any = build("gpt2")
    torch.manual_seed(1)
    (drawn,) = PromptTuning(6).apply(model).values()
    rows = model.transformer.wte.weight
    assert all(any(torch.equal(embedding, row) for row in rows) for embedding in drawn)
    other = build("gpt2")
    torch.manual_seed(1)
    assert torch.equal(next(iter(PromptTuning(6).apply(other).values())), drawn)
    (uniform,) = PromptTuning(6, "random").apply(build("gpt2")).values()
    assert 0.4 < uniform.abs().max() <= 0.5
    with pytest.raises(UsageError, match="choose vocabulary or random"):
        PromptTuning(6, "text")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="length is 0"):
        PromptTuning(0)
    with pytest.raises(UsageError, match="virtual tokens already"):
        PromptTuning(6).apply(model)


def test_count_of_the_paper() -> None:
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12))
    (embeddings,) = PromptTuning(100).apply(model).values()
    assert embeddings.shape == (100, 768)  # 76,800: the 0.08M of the paper's Table 1
    assert embeddings.is_meta


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert", "electra"])
def test_edits_round_trip(family: str, tmp_path: Path) -> None:
    check_round_trip(PromptTuning(5), family, tmp_path)


def test_positions_count_virtual_tokens(gpt2_folder: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path, max_source_length=60, max_target_length=60)
    task = make_task(gpt2_folder, method=PromptTuning(200))
    sentence = "make 120 tokens together, but the backbone '.*' has 56 positions beside 200 virtual tokens; lower one"
    with pytest.raises(UsageError, match=sentence):
        make_trainer(tmp_path).fit(task, datamodule=data)


def test_a_run_trains_and_writes(gpt2_folder: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path, rows=4, max_source_length=30, max_target_length=30)
    task: DataToText = make_task(gpt2_folder, method=PromptTuning(7))
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(task, datamodule=data)
    assert set(task.trainable_parameters()) == {"backbone.transformer.virtual_tokens.embeddings"}
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    assert set(torch.load(checkpoint, weights_only=False)["state_dict"]) == set(task.trainable_parameters())
    again: DataToText = make_task(gpt2_folder, method=PromptTuning(7))
    scores = make_trainer(tmp_path).test(again, datamodule=data, ckpt_path=str(checkpoint), verbose=False)
    assert "test_BLEU" in scores[0]


def test_a_classifier_trains(tmp_path: Path) -> None:
    folder = save_backbone("bert", tmp_path / "bert")
    task = Classification(str(folder), PromptTuning(5), learning_rate=1e-2)
    make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=make_labeled_data(tmp_path, rows=4))
    assert {name for name in task.trainable_parameters() if name.startswith("backbone.")} == {
        "backbone.virtual_tokens.embeddings"
    }
