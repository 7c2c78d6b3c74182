"""``evaluate --suite mt_bench``, from a model to the table, and resumed after a kill."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from red_lightning import RED, load, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.generation import Decoding, Writer
from tests.cli.commands import command_line, environment, rows
from tests.cli.conftest import CLI
from tests.evaluation.judge_stub import Failure, Stub, judge_stub

CATEGORIES = ["writing", "math", "coding"]
PROMPTS = {
    "single-v1": "{question} {answer}",
    "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
    "single-math-v1": "{question} {ref_answer_1} {answer}",
    "single-math-v1-multi-turn": "{question_1} {ref_answer_1} {answer_1} {question_2} {ref_answer_2} {answer_2}",
}
SUITE = ("evaluate", "--suite", "mt_bench")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # openai's pauses before retries


@pytest.fixture
def stub() -> Iterator[Stub]:
    with judge_stub(lambda body, before: "Rating: [[6]]") as stub:
        yield stub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six questions of three categories, in FastChat's layout."""
    questions = [
        {"question_id": n, "category": CATEGORIES[n % 3], "turns": [f"Question {n}?", f"And {n}?"]} for n in range(6)
    ]
    references = [{"question_id": n, "choices": [{"turns": [f"r{n}", f"s{n}"]}]} for n in range(6)]
    prompts = [{"name": name, "system_prompt": "Judge.", "prompt_template": text} for name, text in PROMPTS.items()]
    (tmp_path / "data/mt_bench/reference_answer").mkdir(parents=True)
    files = {"mt_bench/question": questions, "mt_bench/reference_answer/gpt-4": references, "judge_prompts": prompts}
    for name, content in files.items():
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"data/{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path / "data"


def judged_by(stub: Stub, *more: str) -> list[str]:
    options = {"model": "judge/7b", "base_url": stub.url, "key_variable": "null"}
    return [f"--judge.{name}={value}" for name, value in options.items()] + list(more)


def answering(model: Path) -> list[str]:
    return [str(model), "--data=data", "--template=paper", "--decoding.max_new_tokens=4", "--name=tiny"]


def test_from_a_model_to_the_table(cli: CLI, data: Path, stub: Stub, llama_folder: Path, tmp_path: Path) -> None:
    bad: dict[str, Any] = {"Question 1?": Failure(500), "Question 2?": "no"}
    stub.behaviour = lambda body, before: bad.get(body["messages"][-1]["content"][:11], "Rating: [[6]]")
    first = cli(*SUITE, *answering(llama_folder), "--temperatures=fastchat")
    assert first.status == 0, first.err
    assert "set --judge.model" in first.out
    folder = tmp_path / "evaluations/tiny/mt_bench"
    written = (folder / "model_answer/tiny.jsonl").read_bytes()
    assert [row["question_id"] for row in rows(folder / "model_answer/tiny.jsonl")] == [0, 3, 1, 4, 2, 5]

    dry = cli(*SUITE, *answering(llama_folder), "--temperatures=fastchat", *judged_by(stub, "--dry_run=true"))
    assert dry.status == 0, dry.err
    assert dry.out.startswith("the estimate needs all answers: missing ones are generated first")
    assert "12 judgments by judge/7b" in dry.out
    assert "12 are missing" in dry.out
    assert stub.requests == []

    prices = ("--judge.prompt_price=10", "--judge.completion_price=30", "--judge.attempts=2")
    done = cli(*SUITE, *answering(llama_folder), "--temperatures=fastchat", *judged_by(stub, *prices))
    assert done.status == 0, done.err
    assert (folder / "model_answer/tiny.jsonl").read_bytes() == written
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert result["scores"]["final"] == {
        "writing": 6.0,
        "math": 6.0,
        "coding": 6.0,
        "average": 6.0,
        "mean of categories": 6.0,
        "judged": 8,
        "failed": 4,
    }
    assert len(result["judge"]["failed"]) == 4
    usage = {"calls": 12, "prompt_tokens": 1200, "completion_tokens": 120, "cost": (1200 * 10 + 120 * 30) / 1e6}
    assert result["judge"]["usage"] == usage
    assert "4 judgments failed, such as" in done.out
    assert "9.11" in done.out  # the paper's FT, writing
    assert "cost 0.02" in done.out

    bad.clear()
    again = cli(*SUITE, *answering(llama_folder), "--temperatures=fastchat", *judged_by(stub))
    assert again.status == 0, again.err
    assert len(stub.requests) == 8 + 4 * 2 + 4
    judgments = rows(folder / "model_judgment/judge-7b_single.jsonl")
    assert [row["score"] for row in judgments] == [6.0] * 12
    assert {(row["question_id"], row["turn"]) for row in judgments} == {(n, turn) for n in range(6) for turn in (1, 2)}
    assert (folder / "radar.png").read_bytes().startswith(b"\x89PNG")


def write_edits(folder: Path, backbone: Path, seed: int) -> None:
    """Save a random adapter of an instruction-tuned run."""
    model = AutoModelForCausalLM.from_pretrained(backbone)
    record = {"backbone": str(backbone), "fingerprint": fingerprint(model), "method": RED().describe()}
    learned = RED().apply(model)
    generator = torch.Generator().manual_seed(seed)
    for vector in learned.values():
        vector.data += 0.5 * torch.randn(vector.shape, generator=generator)
    save_edits(folder / "edits", learned, {**record, "task": "InstructionTuning", "data": {"template": "paper"}})


def test_edits_answer_as_they_were_trained_or_as_fastchat_draws(
    cli: CLI, data: Path, llama_folder: Path, tmp_path: Path
) -> None:
    write_edits(tmp_path / "run", llama_folder, 0)
    command = (*SUITE, "run", "--data=data", "--decoding.max_new_tokens=5")
    for kind in ("paper", "fastchat"):
        done = cli(*command, f"--output={kind}", f"--temperatures={kind}")
        assert done.status == 0, done.err
    found = {kind: rows(tmp_path / kind / "model_answer/run.jsonl") for kind in ("paper", "fastchat")}
    writer = Writer(load(tmp_path / "run"), Decoding(max_new_tokens=5))
    for row in found["paper"]:
        number = row["question_id"]
        first = [{"role": "user", "content": f"Question {number}?"}]
        (answer,) = writer.answer([first])
        second = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": f"And {number}?"}]
        assert row["choices"][0]["turns"] == [answer, *writer.answer([second])]
    for greedy, drawn in zip(found["paper"], found["fastchat"], strict=True):
        assert (greedy["choices"] == drawn["choices"]) == (CATEGORIES[greedy["question_id"] % 3] != "writing")
    write_edits(tmp_path / "run", llama_folder, 1)
    assert "'paper' was begun with another edits" in cli(*command, "--output=paper").error


def test_answers_of_others_and_several_models(cli: CLI, data: Path, stub: Stub, tmp_path: Path) -> None:
    answers = [{"question_id": n, "choices": [{"index": 0, "turns": ["a", "b"]}]} for n in range(6)]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    for name in ("a", "c"):
        done = cli(*SUITE, "--answers=other.jsonl", "--data=data", f"--output={name}", *judged_by(stub))
        assert done.status == 0, done.err
    done = cli(*SUITE, "--answers=other.jsonl", "--data=data", "--output=b", "--name=second", "--limit=1",
               "--compare", "a", "c", *judged_by(stub))  # fmt: skip
    assert done.status == 0, done.err
    header = next(line for line in done.out.splitlines() if "second" in line)
    assert header.index("second") < header.index("other") < header.index("(c)") < header.index("(paper)")
    assert "…" not in done.out
    assert "complete runs: second has --limit 1" in done.out
    done = cli(*SUITE, "--answers=other.jsonl", "--data=data", "--output=d", "--compare=b", *judged_by(stub))
    assert "complete runs: second has --limit 1" in done.out and "other has" not in done.out
    (tmp_path / "few.jsonl").write_text(json.dumps(answers[0]) + "\n", encoding="utf-8")
    few = cli(*SUITE, "--answers=few.jsonl", "--data=data", "--output=few", *judged_by(stub))
    assert "the answers have none to question" in few.error and not (tmp_path / "few").exists()


def test_a_failed_start_leaves_the_folder_alone(cli: CLI, data: Path, llama_folder: Path, tmp_path: Path) -> None:
    """The template is chosen before the folder is created, and saved there."""
    shutil.copytree(llama_folder, tmp_path / "merged")
    command = (*SUITE, "merged", "--data=data", "--decoding.max_new_tokens=2", "--limit=1")
    assert "this model continues texts; give --template paper or chat" in cli(*command).error
    assert "has no chat template" in cli(*command, "--template=chat").error
    assert "this model continues texts" in cli(*command, "--template=plain").error
    assert not (tmp_path / "evaluations").exists()
    done = cli(*command, "--template=paper")
    assert done.status == 0, done.err

    def template(folder: str) -> str:
        return json.loads((tmp_path / folder / "settings.json").read_text(encoding="utf-8"))["template"]

    assert template("evaluations/merged/mt_bench") == "paper"
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "merged")
    done = cli(*command, "--output=own")
    assert done.status == 0, done.err
    assert template("own") == "chat"
    again = cli(*command, "--output=own", "--template=chat")  # the same
    assert again.status == 0 and "answered" not in again.out


@pytest.mark.parametrize("file", ["model_answer/tiny", "replies"])
def test_damaged_records_are_named(file: str, cli: CLI, data: Path, stub: Stub, llama_folder: Path) -> None:
    command = (*SUITE, *answering(llama_folder), "--limit=1", "--output=out", *judged_by(stub))
    done = cli(*command)
    assert done.status == 0, done.err
    with Path(f"out/{file}.jsonl").open("a") as kept:
        kept.write("{}\n")
    assert f"'out/{file}.jsonl' is damaged; remove that line" in cli(*command).error


@pytest.mark.slow
def test_goes_on_after_a_kill(cli: CLI, data: Path, stub: Stub, llama_folder: Path, tmp_path: Path) -> None:
    """A run that is killed while judging resumes from its answers and judgments."""
    stub.behaviour = lambda body, before: "[[6]]" if len(stub.requests) <= 5 else Failure(None)
    command = command_line(*SUITE, *answering(llama_folder), *judged_by(stub, "--judge.concurrency=2"))
    child = subprocess.Popen(command, cwd=tmp_path, env=environment(no_proxy="127.0.0.1"), stdout=subprocess.DEVNULL)
    stub.wait_for(7)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    stub.behaviour = lambda body, before: "[[6]]"
    done = cli(*SUITE, *answering(llama_folder), *judged_by(stub))
    assert done.status == 0, done.err
    assert "answered" not in done.out
    assert "of which 7 are missing" in done.out
    result = json.loads((tmp_path / "evaluations/tiny/mt_bench/results.json").read_text(encoding="utf-8"))
    assert result["judge"]["usage"]["calls"] == result["scores"]["final"]["judged"] == 12
    assert sorted(stub.asked.values()) == [1] * 10 + [2] * 2  # two were in flight


def test_bad_input_gets_one_sentence(
    cli: CLI, data: Path, stub: Stub, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = str(llama_folder)
    shown = cli(*SUITE, "--help")
    assert shown.status == 0
    assert "--judge.key_variable" in shown.out
    assert "pass either a model or --answers" in cli(*SUITE, "--data=data").error
    assert "pass --data the folder" in cli(*SUITE, model).error
    assert "OPENAI_API_KEY with the judge's key is not set" in cli(*SUITE, model, "--judge.model=gpt-4").error
    assert "limit is 0" in cli(*SUITE, model, "--data=data", "--limit=0").error
    assert "holds no results.json of mt_bench" in cli(*SUITE, model, "--data=data", "--compare=[data]").error
    assert "temperature of the category" in " ".join(
        shown.out.split()
    ) and "greedy decoding in every category" in " ".join(shown.out.split())
    assert "set --judge.model" in cli(*SUITE, model, "--data=data", "--dry_run=true").error
    assert "batch_size is 0" in cli(*SUITE, *answering(llama_folder), "--batch_size=0").error
    for option, sentence in {
        '--judge.fields={"max_tokens": "x"}': "max_tokens of judge.fields is 'x'",
        "--judge.base_url=http://:secret@host/v1": "must hold no password",
        "--judge.base_url=http://h:abc/v1": "judge.base_url is 'http://h:abc/v1', but must look like",
        "--judge.prompt_price=-3": "judge.prompt_price is -3.0, but must be at least 0",
    }.items():
        refused = cli(*SUITE, *answering(llama_folder), "--judge.model=judge", option)
        assert sentence in refused.error and "secret" not in refused.out + refused.err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").touch()
    assert "holds something already" in cli(*SUITE, *answering(llama_folder), "--output=thesis").error
