"""MT-Bench: FastChat's requests and grades, and the paper's means."""

import json
from pathlib import Path
from typing import Any

import pytest

from red_lightning.errors import UsageError
from red_lightning.evaluation import mt_bench_grades as bench
from red_lightning.paper.published import results


@pytest.fixture(scope="module")
def published(shared: Path) -> bench.Benchmark:
    return bench.read_benchmark(shared / "eval/mt_bench")


def answers_to(benchmark: bench.Benchmark) -> dict[Any, dict[str, Any]]:
    return {
        row["question_id"]: {"choices": [{"turns": [f"first {row['question_id']}", "second {answer}"]}]}
        for row in benchmark.questions
    }


@pytest.mark.parametrize(
    ("judgment", "grade"),
    [
        ("Good. Rating: [[8]]", 8.0),
        ("[[8.5]]", 8.5),
        ("Rating: [[10]], not [[3]]", 10.0),
        ("Rating: [7]", 7.0),  # FastChat's second pattern
        ("as [1] says\nRating: [[4]]", 4.0),
        ("[[0]]", 0.0),
        ("[[100]]", None),
        ("[[rating]]", None),
        ("[[ 8 ]]", None),
        ("[[-1]]", None),
        ("8/10", None),
        ("", None),
    ],
)
def test_grades(judgment: str, grade: float | None) -> None:
    assert bench.grade(judgment) == grade


def test_requests_are_fastchats(published: bench.Benchmark) -> None:
    assert len(published.questions) == 80
    found = bench.gradings(published, answers_to(published), "gpt-4")
    assert len(found) == 160
    names = {(one.question["category"], one.turn): one.prompt for one in found}
    with_reference = {"math", "reasoning", "coding"}
    for (category, turn), name in names.items():
        end = "-multi-turn" if turn == 2 else ""
        assert name == ("single-math-v1" if category in with_reference else "single-v1") + end
    for one in found:
        assert {key: value for key, value in one.request.items() if key != "messages"} == {
            "model": "gpt-4",
            "temperature": 0,
            "max_tokens": 2048,
            "n": 1,
        }
        system, user = one.request["messages"]
        template = published.prompts[one.prompt]
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"] == template["system_prompt"]
        text, (first, second) = template["prompt_template"], one.question["turns"]
        number = one.question["question_id"]
        for name, value in {"question": first, "question_1": first, "question_2": second}.items():
            text = text.replace(f"{{{name}}}", value)
        for name in ("answer", "answer_1"):
            text = text.replace(f"{{{name}}}", f"first {number}")
        text = text.replace("{answer_2}", "second {answer}")
        if one.question["category"] in with_reference:
            for turn, reference in enumerate(published.references[number], start=1):
                text = text.replace(f"{{ref_answer_{turn}}}", reference)
        assert user["content"] == text


def test_a_limit_takes_questions_of_each_category(shared: Path) -> None:
    few = bench.read_benchmark(shared / "eval/mt_bench", 2)
    assert [row["question_id"] for row in few.questions] == [n + k for n in range(81, 161, 10) for k in (0, 1)]


def test_temperatures_are_fastchats() -> None:
    known = {category: bench.temperature(category) for category in bench.CATEGORIES}
    assert known == {
        "writing": 0.7,
        "roleplay": 0.7,
        "extraction": 0,
        "math": 0,
        "coding": 0,
        "reasoning": 0,
        "stem": 0.1,
        "humanities": 0.1,
    }
    assert bench.temperature("cooking") == 0.7


def test_means_are_over_what_was_judged() -> None:
    grades = {("writing", 1): [9, 8, -1], ("writing", 2): [2, -1, -1], ("math", 1): [1, 1, 2], ("math", 2): [-1] * 3}
    rows, categories = [], {}
    for (category, turn), scores in grades.items():
        for index, score in enumerate(scores):
            rows.append({"question_id": (category, index), "turn": turn, "score": score})
            categories[category, index] = category
    found = bench.scores(rows, categories)
    assert found["turn 1"] == {
        "writing": 8.5,
        "math": pytest.approx(4 / 3),
        "average": 21 / 5,
        "mean of categories": pytest.approx((8.5 + 4 / 3) / 2),
        "judged": 5,
        "failed": 1,
    }
    assert found["turn 2"] == {
        "writing": 2.0,
        "math": None,
        "average": 2.0,
        "mean of categories": 2.0,
        "judged": 1,
        "failed": 5,
    }
    assert found["final"]["average"] == 23 / 6
    assert found["final"]["writing"] == pytest.approx(19 / 3)


@pytest.mark.parametrize(
    ("row", "judged"),
    [(0, [9, 7, 9, 9, 10, 10, 9, 9]), (1, [10] * 8), (2, [9, 9, 8, 10, 8, 8, 10, 9])],
    ids=["FT", "LoRA", "RED"],
)
def test_the_papers_average_is_over_grades_not_categories(row: int, judged: list[int]) -> None:
    """Table 16's first turn follows from whole and half grades of so many answers in each category."""
    paper = results()["table16_mt_bench_turn1"][row]
    rows = []
    for category, count in zip(bench.CATEGORIES, judged, strict=True):
        total = round(2 * paper[category.capitalize()] * count) / 2
        assert total / count == pytest.approx(paper[category.capitalize()], abs=5.1e-4)
        rows += [{"question_id": category, "turn": 1, "score": total / count}] * count
        rows += [{"question_id": category, "turn": 1, "score": -1}] * (10 - count)
    found = bench.scores(rows, {category: category for category in bench.CATEGORIES})["turn 1"]
    assert found["average"] == pytest.approx(paper["Average"], abs=5.1e-4)
    assert found["failed"] == 80 - sum(judged)
    assert (found["mean of categories"] != pytest.approx(paper["Average"], abs=5e-3)) == (sum(judged) < 80)


def test_judgments_are_fastchats() -> None:
    question = {"question_id": 81, "category": "writing", "turns": ["a", "b"]}
    request = {"messages": [{"role": "user", "content": "prompt"}]}
    asked = [
        bench.Grading(question, 1, "single-v1", request),
        bench.Grading(question, 2, "single-v1-multi-turn", request),
    ]
    rows = bench.judgments(asked, [{"text": "[[3]]", "time": 1.5}, None], "mine", "gpt-4")
    keys = ["question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"]
    assert [list(row) for row in rows] == [keys, keys]
    assert [list(row.values()) for row in rows] == [
        [81, "mine", ["gpt-4", "single-v1"], "prompt", "[[3]]", 3.0, 1, 1.5],
        [81, "mine", ["gpt-4", "single-v1-multi-turn"], "prompt", "$ERROR$", -1, 2, None],
    ]


def test_bad_data_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no mt_bench/question.jsonl; pass --data the folder"):
        bench.read_benchmark(tmp_path)
    question = {"question_id": 1, "category": "math", "turns": ["a", "b"]}
    write(tmp_path, [{**question, "turns": []}], [])
    with pytest.raises(UsageError, match=r"line 1 of .*question.jsonl' has no 'turns'"):
        bench.read_benchmark(tmp_path)
    write(tmp_path, [question], [{"name": "single-v1", "system_prompt": "", "prompt_template": "{question}"}])
    answers = {1: {"choices": [{"turns": ["x", "y"]}]}}
    with pytest.raises(UsageError, match=r"question 1 .math. has no reference answer"):
        bench.gradings(bench.read_benchmark(tmp_path)._replace(references={}), answers, "m")
    with pytest.raises(UsageError, match="no prompt 'single-math-v1'"):
        bench.gradings(bench.read_benchmark(tmp_path), answers, "m")
    with pytest.raises(UsageError, match="have none to question 1"):
        bench.gradings(bench.read_benchmark(tmp_path), {}, "m")
    prompts = {"single-math-v1": {"system_prompt": "", "prompt_template": "{nonsense}"}}
    with pytest.raises(UsageError, match="unknown placeholder 'nonsense'"):
        bench.gradings(bench.read_benchmark(tmp_path)._replace(prompts=prompts), answers, "m")
    with pytest.raises(UsageError, match="has no 'choices' with the 'turns'"):
        (tmp_path / "a.jsonl").write_text('{"question_id": 1, "choices": []}\n')
        bench.read_answers(tmp_path / "a.jsonl")


def write(folder: Path, questions: list[Any], prompts: list[Any]) -> None:
    references = [{"question_id": 1, "choices": [{"turns": ["r", "s"]}]}]
    (folder / "mt_bench/reference_answer").mkdir(parents=True, exist_ok=True)
    files = {"mt_bench/question.jsonl": questions, "mt_bench/reference_answer/gpt-4.jsonl": references}
    prompts = prompts or [{"name": "a", "system_prompt": "", "prompt_template": ""}]
    for name, rows in {**files, "judge_prompts.jsonl": prompts}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
