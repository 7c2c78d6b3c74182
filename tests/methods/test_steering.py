"""The steering vector against its definition, through the command line's ``fit``, and its refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.methods import SteeringVector
from red_lightning.tasks import Classification
from tests.backbones_zoo import FAMILIES, build, build_tokenizer, save_backbone
from tests.labeled import make_labeled_data
from tests.sequences import TEXTS, generated, hidden, hooks
from tests.training import make_data, make_task, make_trainer

PAIRS = [
    {"positive": "Blue Spice serves Thai food.", "negative": "Blue Spice serves food by the riverside."},
    {"positive": "The Vaults is a cheap pub", "negative": "The Vaults"},
]


def write(folder: Path, *lines: Any) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_vector_is_the_mean_difference(family: str, tmp_path: Path) -> None:
    tokenizer, model, plain = build_tokenizer(), build(family), build(family)
    method = SteeringVector(write(tmp_path, *PAIRS), 0, 2.5)
    ((name, vector),) = method.apply(model).items()
    assert torch.equal(hidden(model), hidden(plain))  # until it is computed
    method.compute(model, tokenizer)
    differences = []
    for pair in PAIRS:
        states = []
        for side in ("positive", "negative"):
            tokens = torch.tensor([tokenizer(pair[side])["input_ids"]])
            with torch.no_grad():  # hidden_states: the embeddings, then each block's output
                states.append(plain(input_ids=tokens, output_hidden_states=True).hidden_states[1][0, -1])
        differences.append(states[0] - states[1])
    assert name.endswith(".0.editor.bias")
    assert torch.allclose(vector, 2.5 * torch.stack(differences).mean(0), atol=1e-5)
    assert not torch.allclose(hidden(model), hidden(plain), atol=1e-2)
    assert generated(model, TEXTS, 1) == [generated(model, [text], 1)[0] for text in TEXTS]
    again = vector.clone()
    method.compute(model, tokenizer)  # of the unsteered backbone, once more
    assert torch.equal(vector, again)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "t5"])
def test_changes_nothing_else_and_detaches(family: str, tmp_path: Path) -> None:
    model = build(family).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = SteeringVector(write(tmp_path, *PAIRS), -1)
    (vector,) = method.apply(model).values()
    method.compute(model, build_tokenizer())
    assert model.training
    assert vector.dtype == torch.float32
    assert vector.abs().sum() > 0
    method.detach(model)
    assert set(model.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert hooks(model) == 0


def test_edits_round_trip_without_the_pairs(tmp_path: Path) -> None:
    model, method = build("gpt2").bfloat16(), SteeringVector(write(tmp_path, *PAIRS), 1)
    record = {"backbone": "gpt2", "commit": None, "fingerprint": fingerprint(model), "method": method.describe()}
    parameters = method.apply(model)
    method.compute(model, build_tokenizer())
    save_edits(tmp_path / "edits", parameters, record)
    (tmp_path / "pairs.jsonl").unlink()
    fresh = build("gpt2").bfloat16()
    apply_edits(fresh, tmp_path / "edits")
    assert torch.equal(hidden(fresh), hidden(model))
    with pytest.raises(UsageError, match="cannot be merged"):
        method.fold(fresh)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "is empty; give a pair of texts in each line"),
        ([PAIRS[0], "{'positive'"], "line 2 of model.method.pairs .* is no JSON"),
        ([{"positive": "a"}], "line 1 .* has no text 'negative'"),
        ([{"positive": "", "negative": "b"}], "line 1 .* has no text 'positive'"),
        (["[1]"], "line 1 .* has no text 'positive'"),
        (
            [{"positive": "pub " * 300, "negative": "b"}],
            r"has a text of \d+ tokens, but the backbone has 256 positions",
        ),
    ],
)
def test_wrong_pairs_are_refused(lines: list[Any], sentence: str, tmp_path: Path) -> None:
    model, method = build("gpt2"), SteeringVector(write(tmp_path, *lines), 0)
    method.apply(model)
    with pytest.raises(UsageError, match=sentence):
        method.compute(model, build_tokenizer())


def test_other_refusals(tmp_path: Path) -> None:
    model, method = build("gpt2"), SteeringVector(str(tmp_path / "nothing.jsonl"), 0)
    method.apply(model)
    with pytest.raises(UsageError, match=r"nothing\.jsonl' cannot be read: No such file"):
        method.compute(model, build_tokenizer())
    with pytest.raises(UsageError, match=r"layers \[7\] do not exist"):
        SteeringVector("pairs.jsonl", 7).apply(build("gpt2"))
    with pytest.raises(UsageError, match="not an encoder-decoder"):
        SteeringVector("pairs.jsonl", 0).apply(build("t5"))
    assert "choose a decoder" in SteeringVector.limit(record_of(build("t5").config), has_head=False)


def test_a_run_computes_validates_and_keeps_it(gpt2_folder: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path, rows=6, max_source_length=30, max_target_length=30)
    method = SteeringVector(write(tmp_path, *PAIRS), 0)
    task = make_task(gpt2_folder, method=method, weight_decay=0.1)
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 1
    model = task.load_backbone()
    (vector,) = method.apply(model).values()
    method.compute(model, task.tokenizer)
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"]
    assert torch.equal(kept["backbone.transformer.h.0.editor.bias"], vector)
    (tmp_path / "pairs.jsonl").unlink()  # a resumed run needs it no more
    again = make_task(gpt2_folder, method=method)
    make_trainer(tmp_path).fit(again, datamodule=data, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert torch.equal(again.backbone.transformer.h[0].editor.bias, vector)


def test_a_head_is_trained_on_it(tmp_path: Path) -> None:
    folder, method = save_backbone("roberta", tmp_path / "roberta"), SteeringVector(write(tmp_path, *PAIRS), 0)
    task = Classification(str(folder), method, learning_rate=1e-2)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(task, datamodule=make_labeled_data(tmp_path, rows=6))
    assert trainer.global_step == 3
    (vector,) = (p for name, p in task.trainable_parameters().items() if name.startswith("backbone."))
    model = task.load_backbone()
    (computed,) = method.apply(model).values()
    method.compute(model, task.tokenizer)
    assert torch.equal(vector, computed)
