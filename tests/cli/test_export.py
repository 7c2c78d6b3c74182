"""The command ``export``: what it writes, what it says, and what it refuses."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import red_lightning
from red_lightning.adapters import read_edits, save_edits
from red_lightning.methods import RED
from tests.backbones_zoo import save_backbone
from tests.cli.conftest import CLI
from tests.export.exports import logits, trained


def test_merged_is_written_compared_and_loaded(gpt2_folder: Path, tmp_path: Path, cli: CLI) -> None:
    model, _ = trained(tmp_path / "run", gpt2_folder, RED())
    done = cli("export", str(tmp_path / "run"), "--output", "merged", "--max_shard_gb", "1")
    assert done.status == 0, done.err
    assert "GPT2LMHeadModel, float32" in done.out and "load it with AutoModelForCausalLM" in done.out
    said = done.out.split("largest logit difference from the edited model: ")[1]
    assert float(said.split()[0]) < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (logits(plain) - logits(model)).abs().max() < 1e-5


def test_edits_are_copied_and_load(gpt2_folder: Path, tmp_path: Path, cli: CLI) -> None:
    model, _ = trained(tmp_path / "run", gpt2_folder, RED())
    done = cli("export", str(tmp_path / "run"), "--format", "edits", "--output", "copy")
    assert done.status == 0, done.err
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["edits.json", "edits.safetensors"]
    assert torch.equal(logits(red_lightning.load(tmp_path / "copy").backbone), logits(model))


def test_damaged_edits_are_not_copied(gpt2_folder: Path, tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    file = tmp_path / "run" / "edits" / "edits.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    done = cli("export", str(tmp_path / "run"), "--format", "edits", "--output", "copy")
    assert "damaged" in done.error
    assert not (tmp_path / "copy").exists()


def test_gguf_ready_states_the_architecture(llama_folder: Path, tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", llama_folder, RED())
    options = ("--format", "gguf-ready", "--output", "merged", "--dtype", "bfloat16", "--check", "false")
    done = cli("export", str(tmp_path / "run"), *options)
    assert done.status == 0, done.err
    assert "LlamaForCausalLM, bfloat16" in done.out and "note: llama with mlp_bias" in done.out
    assert "difference" not in done.out


@pytest.mark.parametrize("name", ["edits", "merged", "gguf-ready"])
def test_an_output_that_holds_something_is_refused(name: str, gpt2_folder: Path, tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    done = cli("export", str(tmp_path / "run"), "--format", name, "--output", "run")
    assert "holds something already" in done.error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "edits", "--backbone", "x"], "--backbone is for merged weights, but --format edits copies"),
        (["--format", "edits", "--dtype", "bfloat16"], "--dtype is for merged weights"),
        (["--format", "edits", "--max_shard_gb", "1"], "--max_shard_gb is for merged weights"),
        (["--output", "."], "'.' is the working folder; give another for the merged model"),
        (["--output", "/proc/x"], "No such file or directory; give another folder"),
        (["--output", "file/x"], "cannot be written: Not a directory; give another folder"),
    ],
)
def test_bad_options_are_one_sentence(
    options: list[str], sentence: str, gpt2_folder: Path, tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "run", gpt2_folder, RED())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").touch()
    options = [option.replace("file/", f"{tmp_path}/file/") for option in options]
    done = cli("export", str(tmp_path / "run"), "--output", "merged", *options)
    assert sentence in done.error
    assert not list((tmp_path / "here").iterdir())


def test_outputs_that_are_not_finite_leave_nothing(gpt2_folder: Path, tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", gpt2_folder, RED(["ffn"], "scaling"))
    tensors, record = read_edits(tmp_path / "run/edits")
    save_edits(tmp_path / "run/edits", {name: 1e37 * tensor for name, tensor in tensors.items()}, record)
    done = cli("export", str(tmp_path / "run"), "--output", "merged")
    assert "nothing was written: the outputs of the merged or of the edited model are NaN or infinite" in done.error
    assert "wrote" not in done.out and not (tmp_path / "merged").exists()
    done = cli("generate", str(tmp_path / "run"), "--prompt", "a", "--template", "plain")
    assert "the model's outputs are NaN" in done.error and not done.out.strip()


def test_hidden_states_are_called_so(tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", save_backbone("roberta", tmp_path / "roberta"), RED())
    done = cli("export", str(tmp_path / "run"), "--output", "merged")
    assert done.status == 0, done.err
    assert "largest hidden state difference from the edited model: " in done.out and "logit" not in done.out
    assert "REPORT" not in done.out + done.err


def test_what_does_not_fold_says_what_to_do(t5_folder: Path, tmp_path: Path, cli: CLI) -> None:
    trained(tmp_path / "run", t5_folder, RED())
    done = cli("export", str(tmp_path / "run"), "--output", "merged")
    assert "t5 has no place for a bias" in done.error and "--format edits" in done.error
