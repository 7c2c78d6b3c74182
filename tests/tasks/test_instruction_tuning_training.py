"""Instruction tuning follows a plain PyTorch loop, however the rows of a step are divided."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from red_lightning import RED
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.data.collation import IGNORED
from red_lightning.tasks import InstructionTuning
from tests.backbones_zoo import save_backbone
from tests.conversations import Conversations, tuning
from tests.training import learned, make_trainer

STEPS = 10
LAYOUTS: dict[str, dict[str, Any]] = {
    "whole": {},
    "accumulated": {"micro_batch_size": 2},
    "one by one": {"micro_batch_size": 1},
    "by length": {"micro_batch_size": 2, "group_by_length": True},
    "packed": {"packing": True},
    "packed and accumulated": {"micro_batch_size": 2, "packing": True},
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama without dropout, whose random numbers would differ with the layout."""
    return save_backbone("llama", tmp_path_factory.mktemp("backbone"), dropout=0.0)


def plain_loop(backbone: Path, learning_rate: float) -> tuple[list[float], dict[str, Tensor]]:
    """Ten steps of RED in plain PyTorch: the loss of each, and the vectors after them."""
    model = AutoModelForCausalLM.from_pretrained(backbone).requires_grad_(False).train()
    vectors = {}
    for number, layer in enumerate(model.model.layers):
        scaling, bias = nn.Parameter(torch.ones(32)), nn.Parameter(torch.zeros(32))
        layer.mlp.down_proj.register_forward_hook(lambda _, __, h, s=scaling, b=bias: h * s + b)
        place = f"backbone.model.layers.{number}.mlp.down_proj.editor"
        vectors |= {f"{place}.scaling": scaling, f"{place}.bias": bias}
    optimizer = torch.optim.AdamW(vectors.values(), lr=learning_rate, weight_decay=0.0)
    losses = []
    for batch in step_batches(backbone):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, vectors


def step_batches(backbone: Path) -> list[dict[str, Any]]:
    """The rows of each of ten optimizer steps, as one batch."""
    data = Conversations(seed=7)  # that of make_trainer
    data.connect(tuning(backbone).tokenizer, False)
    data.setup("fit")
    loader, batches = data.train_dataloader(), []
    for epoch in range(4):
        loader.batches.set_epoch(epoch)
        batches += list(loader)
    assert [len(batch["row"]) for batch in batches[:4]] == [4, 4, 3, 4]
    return batches[:STEPS]


class Losses(Callback):
    """Remembers the training loss of each micro-batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train_loss"]))


def fit(backbone: Path, folder: Path, layout: dict[str, Any], **options: Any) -> tuple[InstructionTuning, list[float]]:
    task = tuning(backbone, schedule="constant", **options)
    losses = Losses()
    trainer = make_trainer(folder, max_epochs=-1, max_steps=STEPS, limit_val_batches=0, callbacks=[losses])
    trainer.fit(task, datamodule=Conversations(**layout))
    return task, losses.values


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_is_that_of_a_plain_loop(layout: str, backbone: Path, tmp_path: Path) -> None:
    """Every label of a step counts the same, in whatever micro-batch it is."""
    expected, vectors = plain_loop(backbone, 1e-2)
    task, losses = fit(backbone, tmp_path, LAYOUTS[layout])
    if "micro_batch_size" not in LAYOUTS[layout]:
        assert losses == pytest.approx(expected, rel=1e-5)
        assert losses[-1] < losses[0] - 0.05
    found = learned(task)
    assert found.keys() == vectors.keys()
    for name, value in vectors.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-5)


def test_a_mean_of_means_would_be_something_else(backbone: Path, tmp_path: Path) -> None:
    """What Lightning's accumulation does by itself: the test above would notice."""
    _, vectors = plain_loop(backbone, 1e-2)

    class Means(InstructionTuning):
        def share(self, total: Tensor, batch: Any, weight: int | Tensor = 1) -> Tensor:
            return total / weight

    task = Means(str(backbone), RED(), learning_rate=1e-2, schedule="constant")
    trainer = make_trainer(tmp_path, max_epochs=-1, max_steps=STEPS, limit_val_batches=0, callbacks=[])
    trainer.fit(task, datamodule=Conversations(micro_batch_size=2))
    found = learned(task)
    assert max((found[name] - value).abs().max().item() for name, value in vectors.items()) > 1e-3


def test_a_bfloat16_backbone_keeps_small_steps(backbone: Path, tmp_path: Path) -> None:
    """The next number below 1 is 0.996 in bfloat16; Adam's first step of a learning rate of 1e-3 goes to 0.999."""
    options = {"learning_rate": 1e-3, "backbone_options": BackboneOptions(dtype="bfloat16")}
    task = tuning(backbone, schedule="constant", **options)
    checkpoint = BestCheckpoint()
    make_trainer(tmp_path, checkpoint, max_steps=1).fit(task, datamodule=Conversations())
    saved = read_checkpoint(checkpoint.last_path)["state_dict"]
    scalings = [value for name, value in saved.items() if name.endswith("scaling")]
    assert len(scalings) == 2
    assert {p.dtype for p in task.parameters() if not p.requires_grad} == {torch.bfloat16}
    for scaling in scalings:
        assert scaling.dtype == torch.float32
        torch.testing.assert_close((scaling - 1).abs(), torch.full((32,), 1e-3), rtol=1e-2, atol=0)
    batch = step_batches(backbone)[0]
    with torch.no_grad():
        moved = task.eval().token_losses(batch)[0]
        unedited = tuning(backbone, **options)
        unedited.configure_model()
        assert not torch.equal(unedited.eval().token_losses(batch)[0], moved)


def test_gradient_checkpointing_trains_the_same(backbone: Path, tmp_path: Path) -> None:
    plain, _ = fit(backbone, tmp_path, LAYOUTS["packed and accumulated"])
    options = BackboneOptions(gradient_checkpointing=True)
    checkpointed, _ = fit(backbone, tmp_path, LAYOUTS["packed and accumulated"], backbone_options=options)
    torch.testing.assert_close(learned(checkpointed), learned(plain), rtol=0, atol=0)
