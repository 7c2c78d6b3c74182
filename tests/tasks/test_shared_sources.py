"""Data-to-text with packed rows and shared sources: the losses are the same, and the sources are read once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.data import TextPairs
from red_lightning.data.row_data_module import Split
from red_lightning.efficiency import verification
from red_lightning.errors import UsageError
from red_lightning.methods import PrefixTuning
from tests.backbones_zoo import save_backbone
from tests.callbacks.test_resume import KeepEvery
from tests.training import learned, make_data, make_task, make_trainer, write_pairs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backbones without dropout, which would be drawn otherwise for other shapes."""
    root = tmp_path_factory.mktemp("without_dropout")
    return {family: save_backbone(family, root / family, dropout=0.0) for family in ("gpt2", "t5", "opt", "mistral")}


def data_of(folder: Path, rows: int = 7, **options: Any) -> Any:
    """Seven training sources with two references each."""
    data = make_data(folder, **{"global_batch_size": 4, "seed": 3, **options})
    write_pairs(folder / "train.jsonl", rows, references=2)
    return data


class Apart(TextPairs):
    """Reads the source of each row for itself."""

    def collate(self, split: Split) -> Any:
        self.shares = False
        return super().collate(split)


class Slots(Callback):
    """Counts the tokens that the backbone computes in training and in validation, and collects the losses."""

    def __init__(self) -> None:
        self.slots = {"train": 0, "validate": 0}
        self.losses: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone: Any = pl_module.backbone
        block = (backbone.encoder.block if backbone.config.is_encoder_decoder else backbone.transformer.h)[0]

        def count(_: Any, args: tuple[Any, ...], __: Any) -> None:
            if verification._comparing:  # the first use of a fast path, on a few tokens
                return
            self.slots["train" if pl_module.training else "validate"] += args[0].shape[:2].numel()

        block.register_forward_hook(count)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["val_loss"]))


def fitted(backbone: Path, folder: Path, data: Any, **options: Any) -> tuple[dict[str, torch.Tensor], Slots]:
    task, slots = make_task(backbone, schedule="constant", **options), Slots()
    make_trainer(folder, max_epochs=2, callbacks=[slots], enable_checkpointing=False).fit(task, datamodule=data)
    return learned(task), slots


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=5e-6)


def tokens_of(data: Any, split: str, once: bool) -> int:
    """Tokens of a split's rows, with each source counted once, or once for each row."""
    rows = data._encoded[split]
    sources = {tuple(row["source"]) for row in rows} if once else [row["source"] for row in rows]
    return sum(map(len, sources)) + sum(len(row["target"]) for row in rows)


@pytest.mark.parametrize("micro", [None, 2])
def test_packed_rows_learn_what_padded_ones_do(micro: int | None, folders: dict[str, Path], tmp_path: Path) -> None:
    found = {}
    for packing in (False, True):
        data = data_of(tmp_path, packing=packing, micro_batch_size=micro)
        found[packing] = fitted(folders["gpt2"], tmp_path, data)
    assert_close(found[True][0], found[False][0])
    assert found[True][1].losses == pytest.approx(found[False][1].losses, rel=1e-6)
    assert 2 * tokens_of(data, "train", True) <= found[True][1].slots["train"] <= 2 * tokens_of(data, "train", False)
    assert found[False][1].slots["train"] > 2 * tokens_of(data, "train", False)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_validation_reads_each_source_once(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    losses = []
    for size in (1, 3, 8):
        data = data_of(tmp_path, eval_batch_size=size)
        _, slots = fitted(folders[family], tmp_path, data)
        losses.append(slots.losses)
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-6)
    if family == "gpt2":  # all of them in one row
        assert slots.slots["validate"] == 2 * tokens_of(data, "validation", True)
    else:
        sources = {tuple(row["source"]) for row in data._encoded["validation"]}
        assert slots.slots["validate"] == 2 * len(sources) * max(map(len, sources))


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_batches_of_whole_sources_read_each_once(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """And learn what the same batches teach without sharing."""
    data = data_of(tmp_path, share_sources=True)
    found, slots = fitted(folders[family], tmp_path, data)
    if family == "gpt2":
        assert slots.slots["train"] == 2 * tokens_of(data, "train", True)  # batches of four rows are of two sources
    again = Apart(*data_of(tmp_path).files.values(), global_batch_size=4, seed=3, share_sources=True)
    apart, plain = fitted(folders[family], tmp_path, again)
    assert plain.slots["train"] > slots.slots["train"]
    assert_close(found, apart)
    independent, _ = fitted(folders[family], tmp_path, data_of(tmp_path))
    assert any(not torch.allclose(found[name], independent[name], atol=1e-4) for name in found)


@pytest.mark.parametrize("micro", [None, 1])
def test_a_resumed_run_goes_on_with_the_same_sources(micro: int | None, gpt2_folder: Path, tmp_path: Path) -> None:
    """With dropout, from within an epoch of four steps."""
    ends: list[dict[str, torch.Tensor]] = []
    for checkpoint in (None, str(tmp_path / "checkpoints/step6.kept")):
        task, data = make_task(gpt2_folder), data_of(tmp_path, share_sources=True, micro_batch_size=micro)
        trainer = make_trainer(tmp_path, KeepEvery(every_n_steps=1))
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        assert trainer.global_step == 12
        ends.append(learned(task))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    def refusal(family: str, data: dict[str, Any], **options: Any) -> str:
        with pytest.raises(UsageError) as caught:
            task = make_task(folders[family], **options)
            lengths = {"max_source_length": 30, "max_target_length": 30}
            make_trainer(tmp_path, max_steps=1).fit(task, datamodule=data_of(tmp_path, **lengths, **data))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    packing, sharing = {"packing": True}, {"share_sources": True}
    prefix = PrefixTuning(2)
    assert "model family 't5' of the backbone" in refusal("t5", packing)
    assert "model.method PrefixTuning cannot tell the examples" in refusal("gpt2", packing, method=prefix)
    assert "but model.method PrefixTuning cannot let targets share" in refusal("gpt2", sharing, method=prefix)
    assert "but the model family 'opt' of" in refusal("opt", sharing)
    assert "but the sliding window of" in refusal("mistral", sharing)
    flash = BackboneOptions(attention="flash_attention_2")
    assert "but model.backbone_options.attention flash_attention_2" in refusal("gpt2", sharing, backbone_options=flash)
    assert "give one" in refusal("gpt2", {**sharing, "group_by_length": True})


def test_those_that_cannot_share_validate_as_ever(folders: dict[str, Path], tmp_path: Path) -> None:
    for family, method in (("mistral", None), ("gpt2", PrefixTuning(2))):
        options = {"method": method} if method else {}
        data = data_of(tmp_path, max_target_length=60)
        trainer = make_trainer(tmp_path)
        (scores,) = trainer.validate(make_task(folders[family], **options), datamodule=data, verbose=False)
        assert not data.shares
        assert scores["val_loss"] > 0
