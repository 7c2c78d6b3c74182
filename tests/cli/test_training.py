"""``fit`` and what follows it, from the command line to the files of a run."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from red_lightning import apply_edits
from tests.backbones_zoo import build_tokenizer
from tests.cli.commands import FIT, results, rows, run_apart, write_experiment
from tests.cli.conftest import CLI, Outcome
from tests.training import make_task


def test_run_folder_holds_everything(run: Path, fitted: Outcome) -> None:
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "edits/edits.json",
        "edits/edits.safetensors",
        "results.json",
        "test_predictions.jsonl",
    ]
    for shown in ("runs/first/results.json", "runs/first/edits/", "128 of ", "12 steps", "BLEU", "name[Blue Spice 0]"):
        assert shown in fitted.out
    assert "Traceback" not in fitted.err


def test_results_say_what_was_measured(run: Path, gpt2_folder: Path) -> None:
    written = results(run)
    assert set(written["scores"]) == {"BLEU", "ROUGE_L"}
    assert all(0 <= score <= 1 for score in written["scores"].values())
    assert written["baseline_scores"] is None
    assert written["missing"] == {}
    assert written["seed"] == 7
    once = {"processes": 1, "accumulation": 1, "skipped_steps": 0}
    assert written["train"] == {"steps": 12, "epochs": 2, **once}
    throughput = json.loads((run / "results.json").read_text())["train"]["throughput"]
    assert throughput["rows"] == 2 * 11
    assert throughput["tokens_per_second"] > 0
    assert written["backbone"] == str(gpt2_folder)
    assert written["commit"] is None
    assert written["task"] == "DataToText"
    assert written["method"] == {"name": "RED", "sites": ["ffn"], "vectors": "both", "layers": None}
    assert written["trainable_parameters"] == 2 * 2 * 32
    assert written["data"]["rows"] == {"train": 11, "validation": 8, "test": 4}
    assert written["data"]["files"]["train"] == "train.jsonl"
    assert {"torch", "lightning", "transformers", "red-lightning"} <= set(written["libraries"])
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert written["selection"]["monitor"] == "val_loss"
    assert written["selection"]["mode"] == "min"
    assert written["selection"]["step"] == best["global_step"]
    state = next(state for name, state in best["callbacks"].items() if "BestCheckpoint" in name)
    assert written["selection"]["score"] == state["best_score"]


def test_predictions_are_the_distinct_sources_in_order(run: Path) -> None:
    written = rows(run / "test_predictions.jsonl")
    assert [row["row"] for row in written] == [0, 1, 2, 3]
    assert written[2]["source"] == "name[Zizzi 2], food[French]"
    assert written[2]["references"] == ["Zizzi 2 serves French food.", "There is French food at Zizzi 2."]


def test_edits_are_the_best_checkpoint(run: Path, gpt2_folder: Path) -> None:
    edited = AutoModelForCausalLM.from_pretrained(gpt2_folder).eval()
    before = edited(torch.arange(2, 40)[None]).logits
    assert len(apply_edits(edited, run / "edits")) == 4
    task = make_task(gpt2_folder)
    task.configure_model()
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    task.load_state_dict(checkpoint["state_dict"], strict=False)
    after = edited(torch.arange(2, 40)[None]).logits
    assert torch.equal(after, task.backbone.eval()(torch.arange(2, 40)[None]).logits)
    assert not torch.equal(after, before)


def test_edited_backbone_writes_the_predictions(run: Path, gpt2_folder: Path) -> None:
    edited = AutoModelForCausalLM.from_pretrained(gpt2_folder).eval()
    apply_edits(edited, run / "edits")
    tokenizer = build_tokenizer()
    for row in rows(run / "test_predictions.jsonl"):
        tokens = [*tokenizer(row["source"])["input_ids"], 0]
        new = edited.generate(torch.tensor([tokens]), max_new_tokens=5, do_sample=False, pad_token_id=1)
        text = tokenizer.decode(new[0, len(tokens) :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text.split("\n\n")[0].strip() == row["prediction"]


def test_saved_config_reproduces_the_run(run: Path, cli: CLI, tmp_path: Path) -> None:
    outcome = cli("fit", "--config", str(run / "config.yaml"), "--run.folder", "again")
    assert outcome.status == 0, outcome.err
    (again,) = (tmp_path / "again").iterdir()
    assert results(again) == results(run)
    first, second = (load_file(folder / "edits/edits.safetensors") for folder in (run, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (again / "test_predictions.jsonl").read_text() == (run / "test_predictions.jsonl").read_text()


def test_another_seed_gives_another_run(run: Path, cli: CLI, tmp_path: Path) -> None:
    assert cli(*FIT, "--run.name", "second", "--seed_everything", "8").status == 0
    assert results(tmp_path / "runs/second")["seed"] == 8
    first, second = (load_file(path / "edits/edits.safetensors") for path in (run, tmp_path / "runs/second"))
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_validate_test_and_predict_with_a_checkpoint(run: Path, cli: CLI, tmp_path: Path) -> None:
    checkpoint = ("--config", "small.yaml", "--ckpt_path", str(run / "checkpoints/best.ckpt"))
    assert cli("validate", *checkpoint, "--run.name", "v").status == 0
    measured = results(tmp_path / "runs/v")["scores"]
    assert measured["val_loss"] == pytest.approx(results(run)["selection"]["score"], rel=1e-6)
    assert cli("test", *checkpoint, "--run.name", "t").status == 0
    assert results(tmp_path / "runs/t")["scores"] == results(run)["scores"]
    predictions = (run / "test_predictions.jsonl").read_text()
    assert (tmp_path / "runs/t/test_predictions.jsonl").read_text() == predictions
    (tmp_path / "new.jsonl").write_text('{"source": "name[Cocum], food[Thai]"}\n{"source": "name[Zizzi]"}\n')
    assert cli("predict", *checkpoint, "--data.predict_file", "new.jsonl", "--run.name", "p").status == 0
    written = rows(tmp_path / "runs/p/predictions.jsonl")
    assert [row["source"] for row in written] == ["name[Cocum], food[Thai]", "name[Zizzi]"]
    assert all(row["references"] == [] and isinstance(row["prediction"], str) for row in written)


def test_best_is_that_of_the_newest_run(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    assert cli(*FIT).status == 0
    assert cli(*FIT, "--seed_everything", "8").status == 0
    _, second = sorted(tmp_path.glob("runs/small-*"), key=lambda path: path.stat().st_mtime_ns)
    assert cli("test", "--config", "small.yaml", "--ckpt_path", "best", "--run.name", "t").status == 0
    predictions = (tmp_path / "runs/t/test_predictions.jsonl").read_text()
    assert predictions == (second / "test_predictions.jsonl").read_text()


def test_t5(cli: CLI, tmp_path: Path, t5_folder: Path) -> None:
    write_experiment(tmp_path, t5_folder)
    outcome = cli(*FIT, "--run.name", "t5")
    assert outcome.status == 0, outcome.err
    backbone = AutoModelForSeq2SeqLM.from_pretrained(t5_folder).eval()
    edited = apply_edits(backbone, tmp_path / "runs/t5/edits")
    assert len(edited) == 8  # two vectors in two layers of each stack
    assert all(not torch.equal(p, torch.full_like(p, float(name.endswith("scaling")))) for name, p in edited.items())


def test_baseline_gives_both_columns(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    outcome = cli(*FIT, "--run.name", "both", "--run.baseline", "true", "--model.learning_rate", "0.5")
    assert outcome.status == 0, outcome.err
    assert "unedited" in outcome.out
    written = results(tmp_path / "runs/both")
    assert set(written["baseline_scores"]) == set(written["scores"])
    unedited = rows(tmp_path / "runs/both/baseline_predictions.jsonl")
    edited = rows(tmp_path / "runs/both/test_predictions.jsonl")
    assert [row["source"] for row in unedited] == [row["source"] for row in edited]
    assert [row["prediction"] for row in unedited] != [row["prediction"] for row in edited]
    assert cli("test", "--config", "small.yaml", "--run.name", "t").status == 0  # no checkpoint: unedited
    assert results(tmp_path / "runs/t")["scores"] == written["baseline_scores"]


def test_baseline_does_not_change_the_run(run: Path, cli: CLI, tmp_path: Path) -> None:
    assert cli(*FIT, "--run.name", "both", "--run.baseline", "true").status == 0
    first, second = (load_file(path / "edits/edits.safetensors") for path in (run, tmp_path / "runs/both"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_overrides_win(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    overrides = ("--trainer.max_steps", "3", "--model.method.sites", "[attention]", "--data.train_size", "7")
    assert cli(*FIT, *overrides, "--run.name", "o").status == 0
    written = results(tmp_path / "runs/o")
    assert written["train"]["steps"] == 3
    assert written["method"]["sites"] == ["attention"]
    assert written["data"]["rows"]["train"] == 7
    saved = yaml.safe_load((tmp_path / "runs/o/config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 3
    assert saved["data"]["init_args"]["train_size"] == 7


def test_later_config_wins(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "shorter.yaml").write_text("trainer: {max_epochs: 1}\nmodel: {init_args: {learning_rate: 0.02}}\n")
    shown = cli(*FIT, "--config", "shorter.yaml", "--print_config")
    assert shown.status == 0, shown.err
    config = yaml.safe_load(shown.out)
    assert config["trainer"]["max_epochs"] == 1
    assert config["model"]["init_args"]["learning_rate"] == 0.02
    assert config["model"]["init_args"]["metrics"] == ["BLEU", "ROUGE_L"]


def test_printed_config_loads_again(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    shown = cli(*FIT, "--print_config")
    assert shown.status == 0
    (tmp_path / "printed.yaml").write_text(shown.out)
    again = cli("fit", "--config", "printed.yaml", "--print_config")
    assert again.out == shown.out
    assert not (tmp_path / "runs").exists()


def test_no_two_runs_share_a_folder(cli: CLI, experiment: Path, tmp_path: Path) -> None:
    short = ("--trainer.max_steps", "1", "--model.metrics", "[BLEU]")
    for _ in range(3):
        assert cli(*FIT, *short).status == 0
    assert len(list(tmp_path.glob("runs/small-*"))) == 3


def test_loggers_write_inside_the_run(cli: CLI, tmp_path: Path, gpt2_folder: Path) -> None:
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    logger["init_args"] = {"save_dir": "logs", "name": "csv", "version": ""}  # type: ignore[assignment]
    write_experiment(tmp_path, gpt2_folder, logger=[logger], log_every_n_steps=1)
    assert cli(*FIT, "--run.name", "x").status == 0
    header = (tmp_path / "runs/x/logs/csv/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_loss", "val_loss"} <= set(header)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["runs"]


def test_in_a_process_of_its_own(experiment: Path, tmp_path: Path) -> None:
    done = run_apart(tmp_path, *FIT, "--run.name", "x")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert json.loads((tmp_path / "runs/x/results.json").read_text())["seed"] == 7
    refused = run_apart(tmp_path, *FIT, "--run.name", "x")
    assert refused.returncode == 2
    assert [line for line in refused.stderr.splitlines() if line.startswith("error: ")] != []
    assert "Traceback" not in refused.stderr


def test_scores_of_other_data_are_not_shown(tmp_path: Path) -> None:
    """Published scores beside a run on the user's own data would compare what cannot be compared."""
    (tmp_path / "train.csv").write_text("source,target\n" + "".join(f"thing {n},Thing {n}.\n" for n in range(12)))
    options = ("--data", "TextPairs", "--data.train_file", "train.csv", "--run.baseline", "false")
    done = run_apart(tmp_path, "fit", "--config", "quickstart", *options, "--trainer.max_steps", "1", "--run.name", "x")
    assert done.returncode == 0, done.stderr
    assert "note: run.beside has scores for Restaurants, but this run used TextPairs; they are not shown" in done.stdout
    assert "all weights trained" not in done.stdout
