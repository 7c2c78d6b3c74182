r"""MT-Bench (arXiv 2306.05685): two-turn conversations, graded from 1 to 10 by a judge.

The questions, the reference answers and the judge's prompts are read from FastChat's folder of data; what is asked of
the judge, and how its grade is read, is as in FastChat's grading of single answers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from red_lightning.data.local_files import file_records
from red_lightning.errors import UsageError
from red_lightning.evaluation.judge import Request
from red_lightning.jsonl import Record

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""In the order of the paper's Table 16 and Figure 2."""

WITH_REFERENCE = ("math", "reasoning", "coding")
"""Categories that are graded against a reference answer."""

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""FastChat's temperatures of a model's answers; those of the other categories are 0."""

UNKNOWN_CATEGORY = 0.7  # FastChat's temperature of answers to questions of another category

MOST_TOKENS = 2048  # of a judgment

AVERAGE, MEAN = "average", "mean of categories"


class Benchmark(NamedTuple):
    """What MT-Bench asks, and what its judge is asked.

    Attributes:
        questions: Rows with ``question_id``, ``category`` and one or two ``turns``.
        references: By question id, the reference answers to its turns.
        prompts: By name, rows with ``system_prompt`` and ``prompt_template``.
    """

    questions: list[Record]
    references: dict[Any, list[str]]
    prompts: dict[str, Record]


class Grading(NamedTuple):
    """A request for one grade.

    Attributes:
        question: The question.
        turn: Its turn, 1 or 2.
        prompt: Name of the judge's prompt.
        request: What is sent.
    """

    question: Record
    turn: int
    prompt: str
    request: Request


def read_benchmark(folder: Path, limit: int | None = None) -> Benchmark:
    """Read FastChat's data.

    Args:
        folder: FastChat's ``fastchat/llm_judge/data``: with ``mt_bench/question.jsonl``,
            ``mt_bench/reference_answer/gpt-4.jsonl`` and ``judge_prompts.jsonl``.
        limit: Take so many questions of each category; None takes all.

    Raises:
        UsageError: A file is missing or damaged.
    """
    names = ("mt_bench/question.jsonl", "mt_bench/reference_answer/gpt-4.jsonl", "judge_prompts.jsonl")
    for name in names:
        if not (folder / name).is_file():
            raise UsageError(
                f"'{folder}' has no {name}; give --data the folder fastchat/llm_judge/data of "
                "https://github.com/lm-sys/FastChat"
            )
    questions = [_question(row, where) for where, row in _rows(folder / names[0], "question_id", "category", "turns")]
    references = {row["question_id"]: _turns(row, at) for at, row in _rows(folder / names[1], "question_id", "choices")}
    prompts = {row["name"]: row for _, row in _rows(folder / names[2], "name", "system_prompt", "prompt_template")}
    kept = []
    for category in dict.fromkeys(row["category"] for row in questions):
        kept += [row for row in questions if row["category"] == category][:limit]
    return Benchmark(kept, references, prompts)


def temperature(category: str) -> float:
    """FastChat's temperature of a model's answers to questions of a category."""
    return TEMPERATURES.get(category, 0.0 if category in CATEGORIES else UNKNOWN_CATEGORY)


def read_answers(path: Path) -> dict[Any, Record]:
    """Read answers in the format of FastChat's ``model_answer``, by question id.

    Raises:
        UsageError: The file is missing or damaged.
    """
    return {row["question_id"]: row for where, row in _rows(path, "question_id", "choices") if _turns(row, where)}


def gradings(benchmark: Benchmark, answers: Mapping[Any, Record], model: str) -> list[Grading]:
    """What to ask a judge: for each question a grade of each turn.

    Args:
        benchmark: The questions and prompts.
        answers: By question id, rows with ``choices``.
        model: The judge's name at its endpoint.

    Raises:
        UsageError: A question has no answer or no reference answer, or a prompt is missing or asks for something else.
    """
    found = []
    for question in benchmark.questions:
        name, number = question["category"], question["question_id"]
        if number not in answers:
            raise UsageError(f"the answers hold none to question {number}; answer it first")
        turns = _turns(answers[number], f"the answer to question {number}")
        known = {"question": question["turns"][0], "answer": turns[0]}
        known |= {f"question_{turn}": text for turn, text in enumerate(question["turns"], start=1)}
        known |= {f"answer_{turn}": text for turn, text in enumerate(turns, start=1)}
        if name in WITH_REFERENCE:
            if number not in benchmark.references:
                raise UsageError(f"question {number} ({name}) has no reference answer, which its judge needs")
            known |= {f"ref_answer_{turn}": text for turn, text in enumerate(benchmark.references[number], start=1)}
        for turn in range(1, len(question["turns"]) + 1):
            prompt = f"single{'-math' if name in WITH_REFERENCE else ''}-v1{'-multi-turn' if turn == 2 else ''}"
            found.append(Grading(question, turn, prompt, _request(benchmark.prompts, prompt, known, model)))
    return found


def grade(judgment: str) -> float | None:
    """The grade that a judge gives: ``[[8]]`` or ``[[8.5]]``, or else ``[8]``; None if it gives none up to 10."""
    match = re.search(r"\[\[(\d+\.?\d*)\]\]", judgment) or re.search(r"\[(\d+\.?\d*)\]", judgment)
    value = float(match[1]) if match else None
    return value if value is not None and value <= 10 else None


def readable(reply: Record) -> bool:
    """Whether a judge's reply holds a grade."""
    return grade(reply["text"]) is not None


def judgments(asked: Sequence[Grading], replies: Sequence[Record | None], model_id: str, judge: str) -> list[Record]:
    """The judgments in the format of FastChat's ``model_judgment``; a failed one has the score -1."""
    rows = []
    for grading, reply in zip(asked, replies, strict=True):
        score = grade(reply["text"]) if reply else None
        rows.append(
            {
                "question_id": grading.question["question_id"],
                "model": model_id,
                "judge": [judge, grading.prompt],
                "user_prompt": grading.request["messages"][-1]["content"],
                "judgment": reply["text"] if reply else "$ERROR$",
                "score": -1 if score is None else score,
                "turn": grading.turn,
                "tstamp": reply["time"] if reply else None,
            }
        )
    return rows


def scores(rows: Iterable[Record], categories: Mapping[Any, str]) -> dict[str, dict[str, float | int | None]]:
    """Mean grades, over what was judged.

    Args:
        rows: Judgments.
        categories: Category by question id.

    Returns:
        ``turn 1``, ``turn 2`` and ``final`` (both): the mean of each category (None where nothing was judged), their
        ``mean of categories``, the ``average`` of all grades, and how many were ``judged`` and ``failed``. The paper's
        average is that of all grades.
    """
    rows = list(rows)
    table: dict[str, dict[str, float | int | None]] = {}
    for title, turns in (("turn 1", (1,)), ("turn 2", (2,)), ("final", (1, 2))):
        wanted = [row for row in rows if row["turn"] in turns]
        judged = [row for row in wanted if row["score"] != -1]
        names = [name for name in CATEGORIES if name in categories.values()]
        names += sorted({*categories.values()} - {*CATEGORIES})
        means = {
            name: _mean([row["score"] for row in judged if categories[row["question_id"]] == name]) for name in names
        }
        known = [mean for mean in means.values() if mean is not None]
        counts = {"judged": len(judged), "failed": len(wanted) - len(judged)}
        table[title] = {**means, AVERAGE: _mean([row["score"] for row in judged]), MEAN: _mean(known), **counts}
    return table


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _request(prompts: Mapping[str, Record], name: str, known: Mapping[str, str], model: str) -> Request:
    if name not in prompts:
        raise UsageError(f"judge_prompts.jsonl has no prompt '{name}', which FastChat's has")
    try:
        text = prompts[name]["prompt_template"].format(**known)
    except (LookupError, ValueError) as error:
        raise UsageError(f"the judge's prompt '{name}' asks for {error}, which there is not") from error
    system = prompts[name]["system_prompt"]
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": MOST_TOKENS, "n": 1}


def _rows(path: Path, *columns: str) -> Iterable[tuple[str, Record]]:
    for where, row in file_records(str(path), None):
        for column in columns:
            if column not in row:
                raise UsageError(f"{where} has no '{column}'")
        yield where, row


def _question(row: Record, where: str) -> Record:
    turns = row["turns"]
    if not isinstance(turns, list) or len(turns) not in (1, 2) or not all(isinstance(t, str) and t for t in turns):
        raise UsageError(f"{where} has no 'turns' of one or two texts")
    return row


def _turns(row: Record, where: str) -> list[str]:
    try:
        turns = row["choices"][0]["turns"]
    except (LookupError, TypeError):
        turns = None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise UsageError(f"{where} has no 'choices' with the 'turns' of an answer")
    return turns
