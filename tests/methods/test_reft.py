"""LoReFT against its paper's equation; which tokens it edits; and through generation, artefacts and refusals."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaModel

from red_lightning.errors import UsageError
from red_lightning.methods import LoReFT
from red_lightning.methods.reft import SubspaceEditor
from red_lightning.tasks import Classification
from tests.backbones_zoo import FAMILIES, build, save_backbone
from tests.labeled import make_labeled_data
from tests.sequences import INPUT, TEXTS, check_round_trip, generated, hidden, hooks, padded, randomise, two_steps
from tests.training import make_trainer


def test_editor_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    editor = SubspaceEditor(6, 2)
    randomise(dict(editor.named_parameters()))
    subspace, states = editor.subspace(), torch.randn(3, 4, 6)
    assert torch.allclose(subspace @ subspace.T, torch.eye(2), atol=1e-6)
    spanned = torch.linalg.lstsq(editor.rotation.T, subspace.T).solution  # R spans what the free matrix does
    assert torch.allclose(editor.rotation.T @ spanned, subspace.T, atol=1e-5)
    for h, edited in zip(states.view(-1, 6), editor(states).view(-1, 6), strict=True):
        assert torch.allclose(edited, h + subspace.T @ (editor.weight @ h + editor.bias - subspace @ h), atol=1e-5)
    editor(states).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in editor.parameters())
    assert torch.autograd.gradcheck(
        lambda rotation: torch.linalg.qr(rotation.T).Q, editor.rotation.detach().double().requires_grad_()
    )


def test_first_values_span_a_random_subspace() -> None:
    torch.manual_seed(0)
    editor = SubspaceEditor(8, 3)
    ours = editor.subspace()
    assert torch.allclose(ours.abs(), editor.rotation.abs(), atol=1e-6)  # orthonormal already
    assert editor.weight.abs().max() <= 8**-0.5  # a linear layer's, as pyreft's


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["ends", "all"])
def test_trains_nothing_else_and_detaches(family: str, positions: Any) -> None:
    model = build(family)
    keys, plain = set(model.state_dict()), hidden(model)
    method = LoReFT(2, first=2, positions=positions)
    parameters = method.apply(model)
    assert not torch.allclose(hidden(model), plain, atol=1e-3)
    assert two_steps(model, parameters) == set(parameters)
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(hidden(copied), hidden(model))
    method.detach(model)
    assert torch.equal(hidden(model), plain)
    assert set(model.state_dict()) == keys
    assert hooks(model) == 0
    assert not torch.equal(hidden(copied), plain)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    ("first", "last", "edited"),
    [
        (1, 0, ["100", "100000", "1000"]),
        (0, 1, ["001", "000001", "0001"]),
        (2, 2, ["111", "110011", "1111"]),
    ],
)
def test_first_and_last_tokens_are_edited(first: int, last: int, edited: list[str], left: bool) -> None:
    model: Any = build("roberta", layers=1)
    batch = padded(TEXTS, left)
    plain = model(**batch).last_hidden_state
    LoReFT(2, first, last).apply(model)
    changed = (model(**batch).last_hidden_state != plain).any(-1)
    for row, (mask, text) in enumerate(zip(batch["attention_mask"].bool(), edited, strict=True)):
        assert "".join(str(int(token)) for token in changed[row][mask]) == text
        assert not changed[row][~mask].any()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("positions", ["ends", "all"])
def test_generates_in_a_batch_what_it_does_alone(family: str, positions: Any, beams: int) -> None:
    model = build(family)
    unedited = generated(model, TEXTS, beams)
    parameters = LoReFT(2, first=2, positions=positions).apply(model)
    randomise(parameters)
    for parameter in parameters.values():
        parameter.data *= 3  # else torch 2.4 with transformers 5.0 generates the unedited tokens
    rows = generated(model, TEXTS, beams)
    assert rows == [generated(model, [text], beams)[0] for text in TEXTS]
    assert rows != unedited


@pytest.mark.parametrize("positions", ["ends", "all"])
def test_decoding_edits_the_tokens_that_training_edits(positions: Any) -> None:
    """Also where the prompt is shorter than ``first``: training has prompt and answer in one row."""
    model = build("llama")
    randomise(LoReFT(2, first=9, positions=positions).apply(model))
    tokens = torch.tensor(TEXTS[:1])
    for _ in range(6):
        tokens = torch.cat([tokens, hidden(model, tokens)[:, -1:].argmax(-1)], dim=1)
    assert tokens[:, -6:].tolist() == generated(model, TEXTS[:1], 1)


def test_a_bfloat16_backbone_learns_in_float32() -> None:
    model = build("llama").bfloat16()
    parameters = LoReFT(2).apply(model)
    assert hidden(model.bfloat16()).dtype == torch.bfloat16
    model(input_ids=INPUT).logits.float().sum().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in parameters.values())


def test_counts() -> None:
    with torch.device("meta"):
        roberta, llama = RobertaModel(RobertaConfig()), LlamaForCausalLM(LlamaConfig(num_hidden_layers=32))
    count = sum(p.numel() for p in LoReFT(1, first=1).apply(roberta).values())
    assert count == 12 * (2 * 768 + 1)  # pyreft's setting for GLUE
    count = sum(p.numel() for p in LoReFT(4, positions="all", layers=[3, 9, 18, 24]).apply(llama).values())
    assert count == 4 * 4 * (2 * 4096 + 1)  # its setting for instructions


@pytest.mark.parametrize("family", ["gpt2", "t5", "roberta"])
def test_edits_round_trip(family: str, tmp_path: Path) -> None:
    check_round_trip(LoReFT(2, first=2), family, tmp_path)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="LoReFT cannot edit the last tokens of a prompt here"):
        LoReFT(last=3).apply(build("gpt2"))
    LoReFT(last=3).apply(build("t5"))  # its encoder reads the prompt alone
    LoReFT(last=3, positions="all").apply(build("gpt2"))
    with pytest.raises(UsageError, match="no token would be edited"):
        LoReFT(first=0)
    with pytest.raises(UsageError, match="choose ends or all"):
        LoReFT(positions="prompt")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rank is 33, but the hidden states have 32 columns"):
        LoReFT(33).apply(build("gpt2"))
    with pytest.raises(UsageError, match=r"layers \[5\] do not exist"):
        LoReFT(layers=[5]).apply(build("gpt2"))


def test_a_classifier_trains(tmp_path: Path) -> None:
    folder = save_backbone("gpt2", tmp_path / "gpt2")
    task = Classification(str(folder), LoReFT(2, first=1, last=2), learning_rate=1e-2)
    make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=make_labeled_data(tmp_path, rows=4))
    names = {name for name in task.trainable_parameters() if name.startswith("backbone.")}
    assert names == {f"backbone.h.{i}.editor.{name}" for i in (0, 1) for name in ("rotation", "weight", "bias")}
