"""``evaluate``: suites, and the Open LLM Leaderboard on edits, plain and merged models."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from red_lightning.evaluation import open_llm_scores
from tests.adapters.test_file_format import rewrite
from tests.cli.commands import environment, run_apart, write_classifier
from tests.cli.conftest import CLI
from tests.evaluation.questions import write_hub, write_questions

ASK = ("evaluate", "--suite", "open_llm")


def test_suites_are_listed(cli: CLI) -> None:
    for args in (["evaluate"], ["evaluate", "--help"]):
        shown = cli(*args)
        assert shown.status == 0
        for suite in ("open_llm", "alpaca_eval", "mt_bench"):
            assert f"  {suite} " in shown.out
    assert "give --suite: known: alpaca_eval, mt_bench, open_llm" in cli("evaluate", "--model", "x").error
    assert "give --suite: known: alpaca_eval" in cli("evaluate", "--suite").error
    assert "unknown suite 'openllm': did you mean 'open_llm'?" in cli("evaluate", "--suite=openllm").error


def test_help_explains_the_options(cli: CLI) -> None:
    shown = cli(*ASK, "--help")
    assert shown.status == 0
    assert "python -m red_lightning evaluate --suite open_llm" in " ".join(shown.out.split())
    for option in ("--model", "--tasks", "--num_fewshot", "--limit", "--batch_size", "--backbone_options.dtype"):
        assert option in shown.out
    assert "unknown option '--modell': did you mean '--model'?" in cli(*ASK, "--modell", "x").error
    assert cli(*ASK).error == "give --model"


def test_without_lm_eval(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    error = "lm-eval is not installed; install it with pip install 'red-lightning[evaluation]'"
    assert cli(*ASK, "--model", "x").error == error


@pytest.fixture
def questions(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Questions of two benchmarks in the working folder."""
    pytest.importorskip("lm_eval")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return write_questions(tmp_path, shared, 12, ["truthfulqa", "winogrande", "gsm8k"])


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "open_llm.json").read_text(encoding="utf-8"))


def test_scores_are_kept_task_by_task(
    cli: CLI, run: Path, questions: Path, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = (*ASK, "--model", "runs/first", "--tasks", "truthfulqa,winogrande", "--limit", "5")
    real = open_llm_scores.score_tasks

    def die_at_the_second(model: Any, name: str, *rest: Any, **more: Any) -> Any:
        if name == "winogrande":
            raise KeyboardInterrupt
        return real(model, name, *rest, **more)

    monkeypatch.setattr(open_llm_scores, "score_tasks", die_at_the_second)
    assert cli(*ask).status == 130
    # the other ways to say the same
    assert cli(*ASK, "runs/first", *ask[5:6], "truthfulqa", "winogrande", *ask[7:]).status == 130
    folder = tmp_path / "evaluations/runs-first/open_llm"
    half = read(folder)
    assert set(half["tasks"]) == {"truthfulqa"} and half["average"] is None
    monkeypatch.setattr(open_llm_scores, "score_tasks", real)
    done = cli(*ask)
    assert done.status == 0, done.err
    assert "scored before, and kept: truthfulqa" in done.out
    assert "[1/1] winogrande" in done.out
    assert "not comparable with the paper" in done.out
    assert "TruthfulQA" in done.out and "Winogrande" in done.out and "…" not in done.out
    assert "longer than the specified maximum" not in done.err
    for figure in ("47.07", "44.84", "47.59", "74.03", "75.85", "72.85"):  # Table 18
        assert figure in done.out
    whole = read(folder)
    assert whole["tasks"]["truthfulqa"] == half["tasks"]["truthfulqa"]
    found = whole["tasks"]["winogrande"]
    assert f"{100 * found['score']:.2f}" in done.out
    assert (found["questions"], found["num_fewshot"], found["versions"]) == (5, {"winogrande": 5}, {"winogrande": 1.0})
    assert found["settings"]["limit"] == 5 and found["settings"]["lm_eval"] == whole["libraries"]["lm-eval"]
    # nothing is left to do
    stamp = (folder / "open_llm.json").stat().st_mtime_ns
    again = cli(*ask)
    assert again.status == 0 and "truthfulqa, winogrande" in again.out
    assert (folder / "open_llm.json").stat().st_mtime_ns == stamp
    named = cli(*ASK, "runs/first", "--tasks=[truthfulqa]", "--limit=5", "--name=mine", "--num_fewshot=0")
    assert named.status == 0 and "Scores of mine" in named.out, named.err
    assert set(read(tmp_path / "evaluations/mine/open_llm")["tasks"]) == {"truthfulqa"}
    wrong = cli(*ask, "--num_fewshot", "-1")
    assert "num_fewshot is -1, but must be at least 0" in wrong.error and "anew" not in wrong.out
    assert "'runs/first' holds something already" in cli(*ask, "--output", "runs/first").error
    # other settings, or other edits under the same name: scored anew
    other = cli(*ask[:-1], "4")
    assert "will be scored anew: truthfulqa, winogrande" in other.out
    assert read(folder)["tasks"]["truthfulqa"]["questions"] == 4
    edits = run / "edits/edits.safetensors"
    rewrite({name: 3 * tensor + 1 for name, tensor in load_file(edits).items()}, edits.parent)
    changed = cli(*ask, "--tasks", "truthfulqa", "--batch_size", "3", "--output", str(folder))
    assert "scored anew: truthfulqa" in changed.out
    assert read(folder)["tasks"]["truthfulqa"]["score"] != half["tasks"]["truthfulqa"]["score"]
    # another model does not go into the same folder
    plain = (*ASK, "--model", str(gpt2_folder), "--tasks", "truthfulqa", "--limit", "5")
    assert "holds the scores of the model 'runs/first'" in cli(*plain, "--output", str(folder)).error
    unedited = cli(*plain, "--output", "plain")
    assert unedited.status == 0, unedited.err
    assert read(tmp_path / "plain")["tasks"]["truthfulqa"]["score"] != half["tasks"]["truthfulqa"]["score"]


def test_a_task_of_ones_own(cli: CLI, gpt2_folder: Path, questions: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/short.yaml").write_text(
        "task: short\ndataset_path: allenai/winogrande\ndataset_name: winogrande_xl\ntest_split: validation\n"
        "output_type: loglikelihood\ndoc_to_text: '{{sentence}}'\ndoc_to_target: '{{option1}}'\nnum_fewshot: 1\n"
        "metric_list:\n  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}\n"
    )
    ask = (*ASK, "--model", str(gpt2_folder), "--tasks", "short", "--include_path", "own", "--output", "out")
    done = cli(*ask)
    assert done.status == 0, done.err
    found = read(tmp_path / "out")["tasks"]["short"]
    assert (found["metric"], found["questions"], found["num_fewshot"]) == ("perplexity,none", 12, {"short": 1})
    assert f"{found['score']:.4f}" in done.out and "(paper)" not in done.out


def test_bad_input(cli: CLI, gpt2_folder: Path, questions: Path, tmp_path: Path) -> None:
    ask = (*ASK, "--model", str(gpt2_folder), "--output", "out")
    assert "--tasks names no task" in cli(*ask, "--tasks", " ,").error
    assert "limit is 0, but must be at least 1" in cli(*ask, "--limit", "0").error
    assert "batch_size is 0, but must be at least 1" in cli(*ask, "--batch_size", "0").error
    assert "the folder './nothing' does not exist" in cli(*ASK, "--model", "./nothing").error
    assert "has no other backbone" in cli(*ask, "--backbone", "gpt2").error
    short = cli(*ask, "--tasks", "gsm8k", "--limit", "1").error
    assert "'gsm8k' cannot be scored with this model" in short
    assert "the questions of 'arc' cannot be read" in cli(*ask, "--tasks", "truthfulqa,arc").error
    assert not (tmp_path / "out/open_llm.json").exists()  # nothing is scored before all can be read
    for text in ("", "[1]", '{"a": 1}'):
        (tmp_path / "out/open_llm.json").write_text(text)
        assert "holds something else than scores" in cli(*ask, "--tasks", "truthfulqa").error
        assert (tmp_path / "out/open_llm.json").read_text() == text


def test_a_classifier_is_refused(cli: CLI, gpt2_folder: Path, questions: Path, tmp_path: Path) -> None:
    write_classifier(tmp_path, gpt2_folder)
    fitted = cli("fit", "--config", "texts.yaml", "--run.name", "c", "--trainer.max_epochs", "1")
    assert fitted.status == 0, fitted.err
    assert "are a classifier's" in cli(*ASK, "--model", "runs/c", "--tasks", "truthfulqa").error


@pytest.fixture(scope="module")
def hub(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A client's environment of a stand-in for the hub that has the benchmarks too."""
    pytest.importorskip("lm_eval")
    root = tmp_path_factory.mktemp("hub")
    write_hub(root, shared, 30)
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        from serve import client_env, serve
    finally:
        sys.path.pop(0)
    with serve(root) as endpoint:
        mine = environment()
        kept = {name: mine[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        yield {**client_env(endpoint, tmp_path_factory.mktemp("home")), **kept, "HF_TOKEN": "hf_test"}


@pytest.mark.slow
def test_the_leaderboard_through_the_hub(hub: dict[str, str], tmp_path: Path) -> None:
    ask = (*ASK, "--model", "meta-llama/Llama-2-7b-hf", "--limit", "2", "--output", "out")
    done = run_apart(tmp_path, *ask, env=hub)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for figure in ("73.34", "44.84", "72.85", "11.90", "77.86", "42.27", "56.19", "55.13", "54.09"):
        assert figure in done.stdout
    found = read(tmp_path / "out")
    tasks = found["tasks"]
    assert {name: task["questions"] for name, task in tasks.items()} == {
        "arc": 4, "truthfulqa": 2, "winogrande": 2, "gsm8k": 2, "hellaswag": 2, "mmlu": 114
    }  # fmt: skip
    assert tasks["truthfulqa"]["shortened"] == 0 < tasks["gsm8k"]["seconds"]
    assert len(tasks["arc"]["settings"]["commit"]) == 40
    assert len(tasks["mmlu"]["num_fewshot"]) == 57 and {*tasks["mmlu"]["num_fewshot"].values()} == {5}
    assert tasks["mmlu"]["score"] == pytest.approx(tasks["mmlu"]["metrics"]["mmlu"]["acc,none"])  # lm-eval's own mean
    assert found["average"] == pytest.approx(sum(task["score"] for task in tasks.values()) / 6)


@pytest.mark.slow
def test_the_paper_selects_by_truthfulqa(hub: dict[str, str], tmp_path: Path) -> None:
    short = ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    short += ["--trainer.limit_test_batches=1", "--data.train_size=40", "--data.eval_batch_size=4"]
    short += ["--data.global_batch_size=20", "--model.decoding.max_new_tokens=4"]
    done = run_apart(tmp_path, "fit", "--config", "llama2_ultrafeedback", *short, "--run.name", "x", env=hub)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "runs/x/results.json").read_text())
    assert written["selection"]["monitor"] == "val_truthfulqa" and written["selection"]["mode"] == "max"
    # the leaderboard gives the kept edits the very score that they were kept for
    ask = (*ASK, "--model", "runs/x", "--tasks", "truthfulqa", "--backbone_options.dtype", "bfloat16")
    scored = run_apart(tmp_path, *ask, "--batch_size", "5", env=hub)
    assert scored.returncode == 0, scored.stderr
    found = read(tmp_path / "evaluations/runs-x/open_llm")["tasks"]["truthfulqa"]
    assert found["questions"] == 30
    assert found["score"] == pytest.approx(written["selection"]["score"], abs=5e-3)
    # edits shared on the hub would be found as folders are
    shutil.move(tmp_path / "runs/x/edits", tmp_path / "shared")
    moved = run_apart(tmp_path, *ask[:3], "--model", "./shared", *ask[5:], env=hub)
    assert moved.returncode == 0, moved.stderr
