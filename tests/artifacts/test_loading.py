"""Edits in three lines: ``red_lightning.load`` gives the model that was trained."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import red_lightning
from red_lightning.artifacts import save_edits
from red_lightning.backbones import loading
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.head import ClassificationHead, HeadOptions
from red_lightning.errors import UsageError
from red_lightning.methods import RED
from tests.artifacts.test_edits import outputs
from tests.backbones_zoo import save_backbone


def trained(run: Path, folder: Path, head: ClassificationHead | None = None) -> torch.nn.Module:
    """Leave random edits of a backbone's folder behind, as a run does, and return the edited model."""
    options = loading.BackboneOptions()
    source = loading.find(str(folder), options)
    model = loading.load_generator(source, options) if head is None else loading.load_encoder(source, options, False)
    record = {"backbone": str(folder), "commit": None, "fingerprint": fingerprint(model), "method": RED().describe()}
    learned = RED().apply(model)
    for number, vector in enumerate(learned.values()):
        vector.data += 0.3 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(number))
    if head is not None:
        learned = {**learned, **{f"head.{name}": tensor for name, tensor in head.state_dict().items()}}
        record |= {"head": asdict(HeadOptions("first", True, 0.5)), "labels": ["no", "yes"]}
    save_edits(run / "edits", learned, record)
    return model.eval()


@pytest.mark.parametrize("place", ["run", "run/edits"])
def test_a_run_is_loaded_with_its_backbone_and_tokenizer(place: str, gpt2_folder: Path, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", gpt2_folder)
    edited = red_lightning.load(tmp_path / place)
    assert torch.equal(outputs(edited.backbone), outputs(model))
    assert edited.head is None and not edited.backbone.training
    assert edited.tokenizer("a")["input_ids"]


def test_a_classifier_is_loaded_with_its_head(tmp_path: Path) -> None:
    head = ClassificationHead(32, 2)
    model = trained(tmp_path / "run", save_backbone("roberta", tmp_path / "roberta"), head)
    edited = red_lightning.load(tmp_path / "run")
    assert edited.head is not None and torch.equal(outputs(edited.backbone), outputs(model))
    states = outputs(model)[:, 0]
    assert torch.equal(edited.head(states), head.eval()(states))


def test_a_backbone_that_has_moved_is_given_by_its_place(gpt2_folder: Path, tmp_path: Path) -> None:
    moved = save_backbone("gpt2", tmp_path / "here")
    trained(tmp_path / "run", moved)
    moved.rename(tmp_path / "there")
    with pytest.raises(UsageError, match="does not exist"):
        red_lightning.load(tmp_path / "run")
    assert red_lightning.load(tmp_path / "run", backbone=str(tmp_path / "there")).record["backbone"] == str(moved)
