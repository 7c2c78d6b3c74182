"""``generate`` and ``chat`` on the hub's stand-ins: texts are those of the runs, in their number format."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import rows, run_apart
from tests.cli.test_hub_configs import SHORT, hub  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


def test_answers_of_a_bfloat16_llama_are_those_of_predict(hub: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    lines = [{"prompt": f"What is {n} and {n}?", "response": f"It is {2 * n}."} for n in range(40)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "asked.txt").write_text("What is 50 and 50?\nName three colours.\n", encoding="utf-8")
    run = ["--config", "own_instructions", "--data.train_file", "mine.jsonl", "--model.decoding.max_new_tokens", "16"]
    fitted = run_apart(tmp_path, "fit", *run, "--trainer.max_steps", "3", "--run.name", "x", env=hub)
    assert fitted.returncode == 0, fitted.stderr
    best = ["--ckpt_path", "runs/x/checkpoints/best.ckpt", "--data.predict_file", "asked.txt", "--run.name", "p"]
    assert run_apart(tmp_path, "predict", *run, *best, env=hub).returncode == 0
    done = run_apart(tmp_path, "generate", "runs/x", "--file", "asked.txt", "--output", "out.jsonl", env=hub)
    assert done.returncode == 0, done.stderr
    predicted = rows(tmp_path / "runs/p/predictions.jsonl")
    assert [row["output"] for row in rows(tmp_path / "out.jsonl")] == [row["answer"] for row in predicted]
    record = json.loads((tmp_path / "runs/x/edits/edits.json").read_text(encoding="utf-8"))
    assert (record["dtype"], record["data"]["template"], len(record["commit"])) == ("bfloat16", "paper", 40)
    page = ["--compare", "runs/x", "--baseline", "true", "--file", "asked.txt", "--output", "page.html"]
    assert run_apart(tmp_path, "generate", *page, env=hub).returncode == 0
    assert "RED · " in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_descriptions_of_e2e_are_those_of_the_test(hub: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    short = [*SHORT, "--model.decoding.max_new_tokens=12", "--run.name", "x"]
    fitted = run_apart(tmp_path, "fit", "--config", "gpt2_medium_e2e", *short, env=hub)
    assert fitted.returncode == 0, fitted.stderr
    tested = rows(tmp_path / "runs/x/test_predictions.jsonl")
    sources = [json.dumps({"meaning_representation": row["source"]}) for row in tested]
    (tmp_path / "sources.jsonl").write_text("\n".join(sources), encoding="utf-8")
    read = ["--file", "sources.jsonl", "--column", "meaning_representation", "--overlong", "cut"]
    done = run_apart(tmp_path, "generate", "runs/x", *read, "--output", "out.jsonl", env=hub)
    assert done.returncode == 0, done.stderr
    assert [row["output"] for row in rows(tmp_path / "out.jsonl")] == [row["prediction"] for row in tested]
