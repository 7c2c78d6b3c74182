"""``evaluate --suite alpaca_eval``, from a model to the win rate."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import environment, rows, run_apart
from tests.cli.conftest import CLI
from tests.evaluation.judge_stub import Failure, Stub, judge_stub

SUITE = ("evaluate", "--suite", "alpaca_eval")
FIRST = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
SECOND = "[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # openai's pauses before retries


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A judge that always prefers the model to the reference."""

    def verdict(body: dict[str, Any], before: int) -> str:
        text = body["messages"][-1]["content"]
        return SECOND if text.index("the reference") < text.index('"model_2"') else FIRST

    with judge_stub(verdict) as stub:
        yield stub


@pytest.fixture
def references(tmp_path: Path) -> Path:
    path = tmp_path / "references.json"
    content = [
        {"dataset": "d", "instruction": f"Instruction {n}.", "output": "the reference", "generator": "davinci"}
        for n in range(6)
    ]
    content[5]["instruction"] += " word" * 3000  # longer than the model's context
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def judged_by(stub: Stub, *more: str) -> list[str]:
    options = {"model": "judge", "base_url": stub.url, "key_variable": "null"}
    return [f"--judge.{name}={value}" for name, value in options.items()] + list(more)


def answering(model: Path) -> list[str]:
    return [
        str(model),
        "--references=references.json",
        "--template=paper",
        "--decoding.max_new_tokens=4",
        "--name=tiny",
    ]


def test_from_a_model_to_the_win_rate(
    cli: CLI, references: Path, stub: Stub, llama_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("alpaca_eval", exc_type=ImportError)
    prefers = stub.behaviour
    stub.behaviour = lambda body, before: Failure(500) if "Instruction 4." in str(body) else prefers(body, before)
    done = cli(*SUITE, *answering(llama_folder), *judged_by(stub, "--judge.attempts=3", "--judge.concurrency=1"))
    assert done.status == 0, done.err
    folder = tmp_path / "evaluations/tiny/alpaca_eval"
    outputs = json.loads((folder / "model_outputs.json").read_text(encoding="utf-8"))
    assert [row["instruction"][:14] for row in outputs] == [f"Instruction {n}." for n in range(6)]
    assert "1 answers are empty because their prompts are too long" in done.out
    assert ["flag" in row for row in outputs] == [False] * 5 + [True]
    assert outputs[5]["output"] == ""
    assert {row["generator"] for row in outputs} == {"tiny"}
    assert [row["output"] for row in rows(folder / "answers.jsonl")] == [row["output"] for row in outputs]
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    counts = {name: result["scores"][name] for name in ("win_rate", "wins", "losses", "draws", "judged", "failed")}
    assert counts == {"win_rate": 100.0, "wins": 5, "losses": 0, "draws": 0, "judged": 5, "failed": 1}
    assert result["judge"]["failed"] == ["HTTP 500 Internal Server Error"]
    assert len(stub.requests) == 5 + 3

    stub.behaviour = prefers
    again = cli(*SUITE, *answering(llama_folder), *judged_by(stub))
    assert again.status == 0, again.err
    assert len(stub.requests) == 9
    assert "answered" not in again.out
    assert "81.69" in again.out  # the paper's RED
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    assert [row["preference"] for row in annotations] == [2] * 6

    known = cli(*SUITE, "--annotations", str(folder / "annotations.json"), f"--compare={folder}")
    assert known.status == 0, known.err
    assert known.out.count("100.00") == 2
    assert len(stub.requests) == 9


def test_published_annotations(cli: CLI, shared: Path) -> None:
    path = shared / "eval/alpaca_eval/alpaca-7b/alpaca_eval_gpt4_annotations.json"
    done = cli(*SUITE, "--annotations", str(path), "--name", "alpaca-7b")
    assert done.status == 0, done.err
    long = cli(
        *SUITE, "--annotations", str(path), "--name", "a-name-" + "which-is-longer-than-the-terminal-is-wide-" * 3
    )
    assert "win_rate" in long.out and "26.46" in long.out and "…" not in long.out
    assert "26.46" in done.out
    assert "805" in done.out


@pytest.mark.slow
def test_a_judge_that_repeats_the_published_verdicts(cli: CLI, shared: Path, stub: Stub) -> None:
    """All 805 judgments with failures in between give the leaderboard's win rate."""
    pytest.importorskip("alpaca_eval", exc_type=ImportError)
    folder = shared / "eval/alpaca_eval/alpaca-7b"
    known = {}
    for row in json.loads((folder / "alpaca_eval_gpt4_annotations.json").read_text(encoding="utf-8")):
        first, second = (row[f"output_{n}"].strip() for n in (1, 2))
        known[first, second], known[second, first] = row["preference"], 3 - row["preference"]
    failures = [Failure(429), Failure(500), Failure(0), "what?"]

    def repeat(body: dict[str, Any], before: int) -> Any:
        number = len(stub.requests)
        if before == 0 and number % 3 == 0:
            return failures[number // 3 % 4]
        shown = [part.rsplit('"""\n', 1)[0].strip() for part in body["messages"][-1]["content"].split('"answer": """')]
        return FIRST if known[shown[1], shown[2]] == 1 else SECOND

    stub.behaviour = repeat
    references = shared / "hub/tatsu-lab/alpaca_eval/alpaca_eval.json"
    given = (f"--answers={folder / 'model_outputs.json'}", f"--references={references}", "--output=replayed")
    done = cli(*SUITE, *given, *judged_by(stub, "--judge.concurrency=8"))
    assert done.status == 0, done.err
    scores = json.loads(Path("replayed/results.json").read_text(encoding="utf-8"))["scores"]
    assert scores["win_rate"] == pytest.approx(26.459627329192543, abs=1e-10)
    assert (scores["judged"], scores["draws"], scores["avg_length"]) == (805, 16, 396)  # as the leaderboard says
    assert len(stub.asked) == 789


@pytest.mark.slow
def test_references_come_from_the_hub(shared: Path, tmp_path: Path, llama_folder: Path) -> None:
    sys.path.insert(0, str(shared / "hub_server"))
    try:
        from serve import client_env, serve
    finally:
        sys.path.pop(0)
    with serve() as endpoint:
        hub = client_env(endpoint, tmp_path / "home")
        variables = {name: environment()[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        command = (
            *SUITE,
            str(llama_folder),
            "--template=paper",
            "--decoding.max_new_tokens=2",
            "--limit=3",
            "--name=a",
        )
        done = run_apart(tmp_path, *command, env={**hub, **variables})
    assert done.returncode == 0, done.stderr
    outputs = json.loads((tmp_path / "evaluations/a/alpaca_eval/model_outputs.json").read_text(encoding="utf-8"))
    published = json.loads((shared / "hub/tatsu-lab/alpaca_eval/alpaca_eval.json").read_text(encoding="utf-8"))
    assert [row["instruction"] for row in outputs] == [row["instruction"] for row in published[:3]]


def test_answers_of_others_wait_for_a_judge(cli: CLI, references: Path, tmp_path: Path) -> None:
    asked = json.loads(references.read_text(encoding="utf-8"))
    outputs = [{"instruction": row["instruction"], "output": "x"} for row in asked]
    (tmp_path / "outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
    done = cli(*SUITE, "--answers=outputs.json", "--references=references.json")
    assert done.status == 0, done.err
    assert "set --judge.model to judge them" in done.out
    assert (tmp_path / "evaluations/outputs/alpaca_eval/settings.json").is_file()


def test_bad_input_gets_one_sentence(
    cli: CLI, references: Path, stub: Stub, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(llama_folder)
    shown = cli(*SUITE, "--help")
    assert shown.status == 0
    assert "--judge.key_variable" in shown.out
    assert "pass either a model or --answers" in cli(*SUITE, "--references=references.json").error
    assert "does not exist; pass a file" in cli(*SUITE, model, "--references=none.json").error
    assert "is not on this machine" in cli(*SUITE, model).error
    (tmp_path / "outputs.json").write_text('[{"instruction": "Instruction 1.", "output": ""}]', encoding="utf-8")
    given = ("--answers=outputs.json", "--references=references.json")
    assert "has no output for 5 of the 6 instructions" in cli(*SUITE, *given).error
    monkeypatch.setitem(sys.modules, "alpaca_eval", None)
    assert "pip install 'red-lightning[evaluation]'" in cli(*SUITE, *answering(llama_folder), *judged_by(stub)).error
    assert "set --judge.model" in cli(*SUITE, *answering(llama_folder), "--dry_run=true").error
    assert "batch_size is 0" in cli(*SUITE, *answering(llama_folder), "--batch_size=0").error
    assert not (tmp_path / "evaluations").exists()
