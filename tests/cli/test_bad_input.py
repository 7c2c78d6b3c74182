"""Bad input ends with status 2 and one sentence that names the wrong thing and the way out; it leaves no run behind."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import XGLMConfig, XGLMForCausalLM

from tests.backbones_zoo import VOCABULARY, build_tokenizer, save_backbone
from tests.cli.conftest import CLI
from tests.training import write_pairs

FIT = ("fit", "--config", "small.yaml")

NAMES: dict[str, tuple[list[str], list[str]]] = {
    "command": (["fti"], ["unknown command 'fti'", "did you mean 'fit'?"]),
    "config": (["fit", "--config", "quickstrat"], ["'quickstrat'", "did you mean 'quickstart'?"]),
    "config, with =": (["fit", "--config=quickstrat"], ["'quickstrat'", "did you mean 'quickstart'?"]),
    "no config": (["fit"], ["--config NAME"]),
    "task": ([*FIT, "--model", "DataToTex"], ["unknown task 'DataToTex'", "did you mean 'DataToText'?"]),
    "data": ([*FIT, "--data", "TextPair"], ["unknown data module 'TextPair'", "did you mean 'TextPairs'?"]),
    "method": ([*FIT, "--model.method", "REDD"], ["unknown method 'REDD'", "did you mean 'RED'?"]),
    "site": ([*FIT, "--model.method.sites", "[fnn]"], ["unknown site 'fnn'", "did you mean 'ffn'?"]),
    "pattern": ([*FIT, "--model.method.sites", "['*.fc9']"], ["'*.fc9'", "mlp.c_"]),
    "layer": ([*FIT, "--model.method.layers", "[7]"], ["layers [7] do not exist", "0 to 1"]),
    "vectors": ([*FIT, "--model.method.vectors", "bais"], ["model.method", "'bais'", "bias"]),
    "optimizer": ([*FIT, "--model.optimizer", "AdmW"], ["unknown optimizer 'AdmW'", "did you mean 'AdamW'?"]),
    "schedule": ([*FIT, "--model.schedule", "linaer"], ["unknown schedule 'linaer'", "did you mean 'linear'?"]),
    "metric": ([*FIT, "--model.metrics", "[BLUE]"], ["unknown metric 'BLUE'", "did you mean 'BLEU'?"]),
    "monitor": ([*FIT, "--checkpoint.monitor", "val_los"], ["'val_los'", "did you mean 'val_loss'?"]),
    "trainer option": ([*FIT, "--trainer.max_epcohs", "1"], ["'--trainer.max_epcohs'", "'--trainer.max_epochs'?"]),
    "task option": ([*FIT, "--model.learning_rat", "1"], ["learning_rat'", "did you mean", "learning_rate'?"]),
    "method option": ([*FIT, "--model.method.site", "[ffn]"], ["site'", "did you mean", "sites'?"]),
    "data option": ([*FIT, "--data.train_fil", "x"], ["train_fil'", "did you mean", "train_file'?"]),
    "run option": ([*FIT, "--run.nmae", "x"], ["'--run.nmae'", "'--run.name'?"]),
    "tool option": (["configs", "--cpoy", "x"], ["'--cpoy'", "did you mean '--copy'?"]),
    "tool's missing option": (["score", "--references", "x"], ["give --predictions"]),
    "experiment to copy": (["configs", "--copy", "quickstrat"], ["'quickstrat'", "did you mean 'quickstart'?"]),
}

VALUES: dict[str, tuple[list[str], list[str]]] = {
    "number": (["--model.learning_rate", "fast"], ["model", "learning_rate cannot be 'fast'", "a number"]),
    "whole number": (["--trainer.max_epochs", "two"], ["trainer.max_epochs cannot be 'two'", "a whole number"]),
    "fraction": (["--data.global_batch_size", "2.5"], ["global_batch_size cannot be '2.5'", "a whole number"]),
    "choice": (["--checkpoint.mode", "least"], ["checkpoint.mode cannot be 'least'", "min", "max"]),
    "truth": (["--run.baseline", "perhaps"], ["run", "baseline", "perhaps", "true or false"]),
    "no rows in a batch": (["--data.global_batch_size", "0"], ["data.global_batch_size is 0", "at least one"]),
    "ratio": (["--model.warmup_ratio", "3"], ["model.warmup_ratio is 3", "between 0 and 1"]),
    "steps": (["--checkpoint.every_n_steps", "0"], ["checkpoint.every_n_steps is 0", "at least 1"]),
    "share": (["--data.validation_share", "1.5"], ["data.validation_share is 1.5", "between 0 and 1"]),
    "too few rows": (["--data.train_size", "99"], ["data.train_size is 99", "11 rows"]),
    "too long a source": (["--data.max_source_length", "250"], ["max_source_length 250", "256 positions"]),
    "too long an output": (["--model.decoding.max_new_tokens", "250"], ["max_new_tokens 250", "256 positions"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_name(name: str, cli: CLI, experiment: Path, tmp_path: Path) -> None:
    args, fragments = NAMES[name]
    error = cli(*args).error
    assert [fragment for fragment in fragments if fragment not in error] == [], error
    assert runs(tmp_path) == []


@pytest.mark.parametrize("name", VALUES)
def test_wrong_value(name: str, cli: CLI, experiment: Path, tmp_path: Path) -> None:
    args, fragments = VALUES[name]
    error = cli(*FIT, *args).error
    assert [fragment for fragment in fragments if fragment not in error] == [], error
    assert runs(tmp_path) == []


FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "column": ("a.jsonl", b'{"source": "a", "taget": "b"}\n', ["line 1 of", "no column 'target'", "'taget'"]),
    "CSV column": ("a.csv", b"sorce,target\na,b\n", ["no column 'source'", "did you mean 'sorce'?"]),
    "empty file": ("a.jsonl", b"", ["a.jsonl' has no rows"]),
    "header only": ("a.csv", b"source,target\n", ["a.csv' has no rows"]),
    "empty text": ("a.csv", b"source,target\na,b\nc,\n", ["line 3 of 'a.csv' has an empty 'target'"]),
    "not UTF-8": ("a.csv", "source,target\na,b\ncafé,b\n".encode("latin-1"), ["line 3 of", "is not UTF-8"]),
    "not JSON": ("a.jsonl", b'{"source": "a", "target": "b"}\n{"source": \n', ["line 2 of", "not valid JSON"]),
    "not an object": ("a.jsonl", b'["a", "b"]\n', ["line 1 of", "not a JSON object"]),
    "ending": ("a.xlsx", b"PK", ["unknown ending", ".csv, .tsv, .jsonl, .ndjson, .parquet"]),
    "parquet": ("a.parquet", b"PAR1", ["a.parquet", "Parquet"]),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_data_file(name: str, cli: CLI, experiment: Path, tmp_path: Path) -> None:
    file, content, fragments = FILES[name]
    (tmp_path / file).write_bytes(content)
    error = cli(*FIT, "--data.train_file", file).error
    assert [fragment for fragment in [file, *fragments] if fragment not in error and fragment != file] == [], error
    assert runs(tmp_path) == []


def test_missing_data_file(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert "'none.jsonl' does not exist" in cli(*FIT, "--data.train_file", "none.jsonl").error
    assert "no train rows" in cli(*FIT, "--data.train_file", "null").error
    assert runs(tmp_path) == []


def test_bad_backbone_folder(cli: CLI, experiment: Path, tmp_path: Path, gpt2_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "gpt3"}')
    build_tokenizer().save_pretrained(tmp_path / "weightless")
    (tmp_path / "weightless" / "config.json").write_text((gpt2_folder / "config.json").read_text())
    expected = {
        "./none": "the folder './none' does not exist",
        "./empty": "the folder './empty' holds no model: it has no config.json",
        "./broken": "the configuration of the backbone './broken' cannot be read",
        "./weightless": "the backbone './weightless' cannot be loaded",
        "nobody/nothing": "the backbone 'nobody/nothing' is not on this machine",
    }
    for folder, sentence in expected.items():
        assert sentence in cli(*FIT, "--model.backbone", folder).error
    assert runs(tmp_path) == []


def test_unknown_family_takes_patterns(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 2}
    config = XGLMConfig(vocab_size=VOCABULARY, max_position_embeddings=256, **sizes)
    torch.manual_seed(0)
    XGLMForCausalLM(config).save_pretrained(tmp_path / "xglm")
    build_tokenizer().save_pretrained(tmp_path / "xglm")
    error = cli(*FIT, "--model.backbone", "./xglm").error
    assert "the model family 'xglm'" in error
    assert "GPT-2" in error
    assert "sites: [" in error and "*.fc2" in error  # proposed from its modules
    shown = cli("parameters", *FIT[1:], "--model.backbone", "./xglm", "--model.method.sites", "['*.fc2']")
    assert shown.status == 0
    assert "64" in shown.out  # two vectors of width 16 in two layers


def test_output_folder_is_a_file(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "'" + str(tmp_path / "file") + "' cannot be written" in cli(*FIT, "--run.folder", "file").error
    assert "cannot be written" in cli(*FIT, "--run.folder", "file", "--run.name", "x").error
    assert "cannot be written" in cli(*FIT, "--run.folder", "file/runs").error
    assert "checkpoint folder 'file' cannot be written" in cli(*FIT, "--checkpoint.folder", "file").error
    assert (tmp_path / "file").read_text() == "mine"
    assert runs(tmp_path) == []


@pytest.fixture
def checkpoint(cli: CLI, experiment: Path, tmp_path: Path) -> Path:
    """The best checkpoint of a finished run of two steps."""
    limits = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_test_batches", "1")
    assert cli(*FIT, *limits, "--run.name", "done").status == 0
    return tmp_path / "runs/done/checkpoints/best.ckpt"


def test_bad_checkpoint(cli: CLI, checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    other = save_backbone("gpt2", tmp_path / "other", seed=5)
    test = ("test", "--config", "small.yaml", "--ckpt_path")
    assert "'none.ckpt' does not exist" in cli(*test, "none.ckpt").error
    for name in ("half", "empty", "text"):
        assert f"'{name}.ckpt' is damaged or not a checkpoint" in cli(*test, f"{name}.ckpt").error
        assert f"'{name}.ckpt' is damaged or not a checkpoint" in cli(*FIT, "--ckpt_path", f"{name}.ckpt").error
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.4.0"}, tmp_path / "unrecorded.ckpt")
    assert "not written by red_lightning" in cli(*test, "foreign.ckpt").error
    assert "not written by red_lightning" in cli(*test, "unrecorded.ckpt").error
    assert "belongs to another backbone" in cli(*test, str(checkpoint), "--model.backbone", str(other)).error
    error = cli(*test, str(checkpoint), "--model.method.sites", "[attention]").error
    assert "other settings of model.method" in error
    assert "ffn" in error
    assert "attention" in error
    error = cli(*FIT, "--ckpt_path", str(checkpoint), "--model.method.vectors", "bias").error
    assert "it holds 4 trained tensors" in error
    assert "this run trains 2" in error
    assert runs(tmp_path) == ["done"]


def test_best_without_a_run(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert "no run with a best checkpoint yet" in cli("test", "--config", "small.yaml", "--ckpt_path", "best").error
    assert runs(tmp_path) == []


def test_refused_overwrite_keeps_the_finished_run(cli: CLI, checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    assert cli(*FIT, "--run.name", "done", "--run.overwrite", "true", "--model.optimizer", "AdmW").status == 2
    assert checkpoint.read_bytes() == before


def test_infinite_losses_stop_and_keep_the_last_checkpoint(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    schedule = ("--model.schedule", "constant", "--checkpoint.every_n_steps", "1", "--finite_steps.most_in_a_row", "2")
    outcome = cli(*FIT, "--model.learning_rate", "1e30", *schedule, "--run.name", "x")
    error = outcome.error
    found = re.search(r"3 optimizer steps in a row were no numbers, the last at step (\d+) \(training rows \d+", error)
    assert found, error
    assert "model.learning_rate" in error
    last = tmp_path / "runs/x/checkpoints/last.ckpt"
    assert str(last) in error
    kept = torch.load(last, weights_only=True)
    assert kept["global_step"] == int(found[1]) - 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    assert not (tmp_path / "runs/x/results.json").exists()
    for step in (int(found[1]) - 2, int(found[1]) - 1):
        assert f"a gradient of step {step} is no number, so the step was skipped" in outcome.out


def test_a_logger_that_is_not_installed(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    if find_spec("wandb"):
        pytest.skip("wandb is installed")
    part = Path(__file__).parents[2] / "configs/trainer/wandb.yaml"
    error = cli(*FIT, "--trainer.logger", str(part)).error
    assert "WandbLogger needs a package that is not installed: pip install 'wandb" in error
    assert runs(tmp_path) == []


def test_refused_copies(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    assert "'mine.yaml' exists already" in cli("configs", "--copy", "quickstart", "--to", "mine.yaml").error
    assert "cannot be written" in cli("configs", "--copy", "quickstart", "--to", "none/a.yaml").error
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_score_refusals(cli: CLI, tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", 1)
    error = cli("score", "--references", "none.txt", "--predictions", "a.jsonl").error
    assert "none.txt" in error
    assert json.loads((tmp_path / "a.jsonl").read_text())["source"]


def runs(folder: Path) -> list[str]:
    """What lies in the folder of all runs."""
    return sorted(path.name for path in folder.glob("runs/*"))
