import sys

import pytest
import torch

from red_lightning.quickstart import pretrain as script


@pytest.fixture(autouse=True)
def restored_determinism():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_pretraining_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "TOKENIZER_PAIRS", 500)
    for name in ("first", "second"):
        script.pretrain(tmp_path / name, steps=2)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_another_seed_gives_another_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "TOKENIZER_PAIRS", 500)
    for seed in (0, 1):
        script.pretrain(tmp_path / str(seed), steps=1, seed=seed)
    assert contents(tmp_path / "0")["model.safetensors"] != contents(tmp_path / "1")["model.safetensors"]


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TOKENIZER_PAIRS", 500)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--output", str(tmp_path / "new"), "--steps", "1"])
    script.main()
    assert "step 1/1" in capsys.readouterr().out
    assert (tmp_path / "new" / "model.safetensors").stat().st_size < 4_000_000


def test_labels_are_the_target_and_its_end():
    tokenizer = script.train_tokenizer(["name[Maple], type[bar]"], 300)
    ids, labels = next(script.batches(tokenizer, seed=0))
    for row, wanted in zip(ids, labels, strict=True):
        prompt_end = row.tolist().index(script.EOS_ID)
        assert (wanted[: prompt_end + 1] == script.IGNORED).all()
        answer = wanted[wanted != script.IGNORED]
        assert answer.tolist() == row[prompt_end + 1 : prompt_end + 1 + len(answer)].tolist()
        assert answer[-1] == script.EOS_ID
