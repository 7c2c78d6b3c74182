"""The data-to-text task: its losses against other formulas, what trains, and what a checkpoint holds."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning import RED
from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.data.collation import IGNORED
from red_lightning.errors import UsageError, usage_error_in
from red_lightning.generation import Decoding
from red_lightning.methods import FullFineTuning
from red_lightning.tasks import DataToText
from tests.backbones_zoo import save_backbone
from tests.training import learned, make_data, make_task, make_trainer


def configured(backbone: Path, **options: Any) -> DataToText:
    """A task in evaluation mode whose vectors are random."""
    task = make_task(backbone, **options)
    task.configure_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in task.trainable_parameters().values():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return task.eval()


def batch_of(task: DataToText, folder: Path, rows: int = 7) -> dict[str, Tensor]:
    data = make_data(folder, rows, global_batch_size=rows)
    data.connect(task.tokenizer, task.encoder_decoder)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def log_probabilities(task: DataToText, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """For each token of a reference, row by row and without padding: log-probabilities, and the token itself."""
    every, tokens = [], []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids, target = ids[mask.bool()], labels[labels != IGNORED]
        if task.encoder_decoder:
            start = torch.tensor([task.source.config.decoder_start_token_id])
            logits = task.backbone(input_ids=ids[None], decoder_input_ids=torch.cat([start, target[:-1]])[None]).logits
        else:
            logits = task.backbone(input_ids=ids[None, :-1]).logits[:, -len(target) :]
        every.append(logits[0].double().log_softmax(-1))
        tokens.append(target)
    return torch.cat(every), torch.cat(tokens)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@torch.no_grad()
def test_loss_is_the_cross_entropy_of_the_references(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    task = configured(request.getfixturevalue(f"{family}_folder"))
    batch = batch_of(task, tmp_path)
    loss, count = task.loss(batch)
    log_p, tokens = log_probabilities(task, batch)
    assert count == len(tokens)
    assert loss.item() == pytest.approx(-log_p[torch.arange(len(tokens)), tokens].mean().item(), rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@torch.no_grad()
def test_loss_is_transformers_own(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    task = configured(request.getfixturevalue(f"{family}_folder"))
    batch = batch_of(task, tmp_path)
    assert task.loss(batch)[0].item() == pytest.approx(task.backbone(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@torch.no_grad()
def test_label_smoothing_is_its_closed_form(smoothing: float, gpt2_folder: Path, tmp_path: Path) -> None:
    """A share of the target probability goes to all tokens alike; validation knows nothing of it."""
    task = configured(gpt2_folder, label_smoothing=smoothing)
    batch = batch_of(task, tmp_path)
    log_p, tokens = log_probabilities(task, batch)
    chosen = log_p[torch.arange(len(tokens)), tokens]
    expected = -((1 - smoothing) * chosen + smoothing * log_p.mean(-1)).mean().item()
    assert task.loss(batch, smoothing)[0].item() == pytest.approx(expected, rel=1e-5)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    del batch["step_weight"]  # as from another loader
    assert task.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-5)
    task.validation_step(batch, 0)
    assert task.validation_loss.compute().item() == pytest.approx(-chosen.mean().item(), rel=1e-5)


def test_validation_loss_is_per_token_whatever_the_batches(gpt2_folder: Path, tmp_path: Path) -> None:
    losses = []
    for size in (1, 3, 8):
        task = configured(gpt2_folder)
        trainer = make_trainer(tmp_path)
        (scores,) = trainer.validate(task, datamodule=make_data(tmp_path, eval_batch_size=size), verbose=False)
        losses.append(scores["val_loss"])
        assert scores["val_perplexity"] == pytest.approx(torch.tensor(scores["val_loss"]).exp().item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    data = make_data(tmp_path, eval_batch_size=8)
    data.connect(task.tokenizer, False)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        log_p, tokens = log_probabilities(task, batch)
    assert losses[0] == pytest.approx(-log_p[torch.arange(len(tokens)), tokens].mean().item(), rel=1e-5)


class Modes(DataToText):
    """Remembers whether dropout was on, in each step."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.modes: dict[str, list[bool]] = {"train": [], "validation": [], "test": []}

    def _note(self, step: str) -> None:
        modes = {m.training for m in self.backbone.modules() if isinstance(m, nn.Dropout)}
        assert len(modes) == 1
        self.modes[step].append(modes.pop())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self._note("train")
        first, second = self.loss(batch)[0].item(), self.loss(batch)[0].item()
        assert first != second
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._note("validation")
        assert self.loss(batch)[0].item() == self.loss(batch)[0].item()
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self._note("test")
        return super().test_step(batch, batch_idx)


def test_dropout_is_on_in_training_only(gpt2_folder: Path, tmp_path: Path) -> None:
    decoding = Decoding(num_beams=1, max_new_tokens=2)
    task = Modes(str(gpt2_folder), RED(), decoding=decoding, metrics=["BLEU"])
    data = make_data(tmp_path)
    trainer = make_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    assert task.modes["train"] == [True] * 12
    assert task.modes["validation"] == [False] * 7
    assert task.modes["test"] == [False] * 2


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_only_the_vectors_change(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    task = make_task(request.getfixturevalue(f"{family}_folder"), weight_decay=0.1)
    task.configure_model()
    before = copy.deepcopy(task.backbone.state_dict())
    vectors = {name.removeprefix("backbone.") for name in task.trainable_parameters()}
    make_trainer(tmp_path, max_steps=3).fit(task, datamodule=make_data(tmp_path))
    for name, value in task.backbone.state_dict().items():
        assert torch.equal(value, before[name]) != (name in vectors), name


@pytest.fixture
def trained(gpt2_folder: Path, tmp_path: Path) -> tuple[DataToText, Path]:
    """A trained task and its last checkpoint."""
    task = make_task(gpt2_folder)
    make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=make_data(tmp_path))
    return task, tmp_path / "checkpoints/last.ckpt"


def test_a_checkpoint_holds_what_trains(trained: tuple[DataToText, Path], gpt2_folder: Path) -> None:
    task, path = trained
    content = read_checkpoint(path)
    vectors = learned(task)
    assert set(content["state_dict"]) == set(vectors)
    assert all(torch.equal(content["state_dict"][name], value) for name, value in vectors.items())
    numbers = sum(value.numel() for value in vectors.values())
    assert path.stat().st_size < 3 * 4 * numbers + 40_000  # the values and Adam's two moments
    backbone = (gpt2_folder / "model.safetensors").stat().st_size
    assert path.stat().st_size < backbone / 2


def test_a_checkpoint_makes_a_fresh_task_the_same(
    trained: tuple[DataToText, Path], gpt2_folder: Path, tmp_path: Path
) -> None:
    task, path = trained
    fresh = make_task(gpt2_folder)
    data = make_data(tmp_path)
    make_trainer(tmp_path).validate(fresh, datamodule=data, ckpt_path=str(path), weights_only=True, verbose=False)
    batch = batch_of(task, tmp_path)
    with torch.no_grad():
        assert torch.equal(task.eval().loss(batch)[0], fresh.eval().loss(batch)[0])
        unedited = make_task(gpt2_folder)
        unedited.configure_model()
        assert not torch.equal(unedited.eval().loss(batch)[0], fresh.loss(batch)[0])


def test_foreign_checkpoints_are_refused(
    trained: tuple[DataToText, Path], gpt2_folder: Path, llama_folder: Path, tmp_path: Path
) -> None:
    content = read_checkpoint(trained[1])
    twin = save_backbone("gpt2", tmp_path / "twin", seed=1)  # the same shapes
    for backbone, options, complaint in (
        (twin, {}, r"another backbone: it was trained on '.*gpt2'"),
        (llama_folder, {}, "another backbone"),
        (gpt2_folder, {"method": RED(["attention"])}, "other settings of model.method"),
        (gpt2_folder, {"method": RED(vectors="bias")}, "vectors: bias"),
        (gpt2_folder, {"method": RED(layers=[0])}, r"holds 4 trained tensors .* this run trains 2"),
        (gpt2_folder, {"method": FullFineTuning()}, "name: FullFineTuning"),
    ):
        with pytest.raises(UsageError, match=complaint):
            make_task(backbone, **options).on_load_checkpoint(content)
    with pytest.raises(UsageError, match="not written by red_lightning"):
        make_task(gpt2_folder).on_load_checkpoint({"state_dict": {}})
    removed = next(iter(content["state_dict"]))
    del content["state_dict"][removed]
    with pytest.raises(UsageError, match=rf"damaged: it lacks the values of '{removed}'"):
        make_task(gpt2_folder).on_load_checkpoint(content)


def test_lengths_beyond_the_positions_are_refused(gpt2_folder: Path, t5_folder: Path, tmp_path: Path) -> None:
    """The tiny GPT-2 has 256 positions; T5 has none."""
    short, long = Decoding(max_new_tokens=5), Decoding(max_new_tokens=250)

    def setup(backbone: Path, decoding: Decoding, **lengths: int) -> None:
        trainer = make_trainer(tmp_path)
        task = make_task(backbone, decoding=decoding)
        data = make_data(tmp_path, **lengths)
        trainer.validate(task, datamodule=data, verbose=False)

    with pytest.raises(UsageError, match=r"max_source_length 64 and data\.max_target_length 200 .* 256 positions"):
        setup(gpt2_folder, short, max_target_length=200)
    with pytest.raises(UsageError, match=r"model\.decoding\.max_new_tokens 250 make"):
        setup(gpt2_folder, long)
    setup(gpt2_folder, short, max_source_length=128, max_target_length=128)
    setup(t5_folder, long, max_source_length=400)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"optimizer": "Adamw"}, "unknown optimizer 'Adamw': did you mean 'AdamW'"),
        ({"schedule": "liner"}, "unknown schedule 'liner': did you mean 'linear'"),
        ({"metrics": ["BLUE"]}, "unknown metric 'BLUE': did you mean 'BLEU'"),
        ({"warmup_ratio": 1.5}, "warmup_ratio is 1.5"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, Any], complaint: str, gpt2_folder: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_task(gpt2_folder, **options)


def test_a_loss_that_is_no_number_stops_the_run(gpt2_folder: Path, tmp_path: Path) -> None:
    task = make_task(gpt2_folder, learning_rate=1e30)
    trainer = make_trainer(tmp_path, BestCheckpoint(every_n_steps=1))
    with pytest.raises(Exception) as caught:
        trainer.fit(task, datamodule=make_data(tmp_path))
    error = usage_error_in(caught.value)
    last = tmp_path / "checkpoints/last.ckpt"
    assert error is not None
    assert f"4 optimizer steps in a row were no numbers, the last at step {trainer.global_step + 1} (" in str(error)
    assert f"the last good checkpoint is '{last}'" in str(error)
    content = read_checkpoint(last)
    assert content["global_step"] == trainer.global_step
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_a_first_loss_that_is_no_number_leaves_no_checkpoint(gpt2_folder: Path, tmp_path: Path) -> None:
    task = make_task(gpt2_folder)
    task.configure_model()
    next(iter(task.trainable_parameters().values())).data.fill_(float("nan"))
    trainer = make_trainer(tmp_path)
    with pytest.raises(UsageError, match=r"the last at step 4 .*there is no checkpoint yet.*learning_rate"):
        trainer.fit(task, datamodule=make_data(tmp_path))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_test_says_what_it_decoded(gpt2_folder: Path, tmp_path: Path) -> None:
    """One row per distinct source, with its references; the score does not depend on the batches."""
    scores = []
    for size in (1, 3):
        task, data = configured(gpt2_folder), make_data(tmp_path, eval_batch_size=size)
        scores.append(make_trainer(tmp_path).test(task, datamodule=data, verbose=False)[0])
    assert scores[0] == scores[1]
    assert set(scores[0]) == {"test_BLEU"}
