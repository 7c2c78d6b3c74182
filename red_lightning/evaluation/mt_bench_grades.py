"""MT-Bench (arXiv 2306.05685): conversations of two turns. A judge grades each answer from 1 to 10.

The questions, the reference answers and the judge's prompts are FastChat's files. Requests and the parsing of grades
equal FastChat's single-answer grading. FastChat itself needs openai 0.
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
"""The order of the paper's Table 16 and Figure 2."""

WITH_REFERENCE = ("math", "reasoning", "coding")
"""Categories whose judge sees a reference answer."""

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""FastChat's sampling temperatures of answers. The other categories of :data:`CATEGORIES` are greedy."""

UNKNOWN_CATEGORY = 0.7  # FastChat's temperature for any other category

MOST_TOKENS = 2048  # FastChat's limit of a judgment

AVERAGE, MEAN = "average", "mean of categories"


class Benchmark(NamedTuple):
    """The data of MT-Bench.

    Attributes:
        questions: Rows with ``question_id``, ``category`` and one or two ``turns``.
        references: By question id, a reference answer per turn.
        prompts: By name, the judge's prompts: rows with ``system_prompt`` and ``prompt_template``.
    """

    questions: list[Record]
    references: dict[Any, list[str]]
    prompts: dict[str, Record]


class Grading(NamedTuple):
    """A request for the grade of one turn.

    Attributes:
        question: The question.
        turn: 1 or 2.
        prompt: Name of the judge's prompt.
        request: The body of the request.
    """

    question: Record
    turn: int
    prompt: str
    request: Request


def read_benchmark(folder: Path, limit: int | None = None) -> Benchmark:
    """Read FastChat's data.

    Args:
        folder: FastChat's ``fastchat/llm_judge/data``, with ``mt_bench/question.jsonl``,
            ``mt_bench/reference_answer/gpt-4.jsonl`` and ``judge_prompts.jsonl``.
        limit: Maximum number of questions per category; None reads all.

    Raises:
        UsageError: A file is missing or invalid.
    """
    names = ("mt_bench/question.jsonl", "mt_bench/reference_answer/gpt-4.jsonl", "judge_prompts.jsonl")
    for name in names:
        if not (folder / name).is_file():
            raise UsageError(
                f"'{folder}' has no {name}; pass --data the folder fastchat/llm_judge/data of "
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
    """Return FastChat's sampling temperature for a category; 0 is greedy decoding."""
    return TEMPERATURES.get(category, 0.0 if category in CATEGORIES else UNKNOWN_CATEGORY)


def read_answers(path: Path) -> dict[Any, Record]:
    """Read a file of FastChat's ``model_answer``. Return its rows by question id.

    Raises:
        UsageError: The file is missing or invalid.
    """
    return {row["question_id"]: row for where, row in _rows(path, "question_id", "choices") if _turns(row, where)}


def gradings(benchmark: Benchmark, answers: Mapping[Any, Record], model: str) -> list[Grading]:
    """Return the judge's requests, one per question and turn.

    Args:
        benchmark: The questions, references and prompts.
        answers: By question id, rows with ``choices``.
        model: The judge's name at its endpoint.

    Raises:
        UsageError: A question has no answer or reference answer, or a prompt is missing or has an unknown placeholder.
    """
    found = []
    for question in benchmark.questions:
        name, number = question["category"], question["question_id"]
        if number not in answers:
            raise UsageError(f"the answers have none to question {number}; add it, or set a lower --limit")
        turns = _turns(answers[number], f"the answer to question {number}")
        known = {"question": question["turns"][0], "answer": turns[0]}
        known |= {f"question_{turn}": text for turn, text in enumerate(question["turns"], start=1)}
        known |= {f"answer_{turn}": text for turn, text in enumerate(turns, start=1)}
        if name in WITH_REFERENCE:
            if number not in benchmark.references:
                raise UsageError(
                    f"question {number} ({name}) has no reference answer in --data, and its judge needs one"
                )
            known |= {f"ref_answer_{turn}": text for turn, text in enumerate(benchmark.references[number], start=1)}
        for turn in range(1, len(question["turns"]) + 1):
            prompt = f"single{'-math' if name in WITH_REFERENCE else ''}-v1{'-multi-turn' if turn == 2 else ''}"
            found.append(Grading(question, turn, prompt, _request(benchmark.prompts, prompt, known, model)))
    return found


def grade(judgment: str) -> float | None:
    """Return the grade in a judgment: the first ``[[8]]`` or ``[[8.5]]``, else ``[8]``; None if missing or over 10."""
    match = re.search(r"\[\[(\d+\.?\d*)\]\]", judgment) or re.search(r"\[(\d+\.?\d*)\]", judgment)
    value = float(match[1]) if match else None
    return value if value is not None and value <= 10 else None


def readable(reply: Record) -> bool:
    """Return whether a reply holds a grade."""
    return grade(reply["text"]) is not None


def judgments(asked: Sequence[Grading], replies: Sequence[Record | None], model_id: str, judge: str) -> list[Record]:
    """Return the rows of FastChat's ``model_judgment``. A missing judgment has the score -1."""
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
    """Return the mean grades. Missing judgments are in no mean.

    Args:
        rows: Judgments.
        categories: Category by question id.

    Returns:
        For ``turn 1``, ``turn 2`` and ``final`` (both): the mean of each category (None without judgments), their
        ``mean of categories``, the ``average`` of all grades, and the counts ``judged`` and ``failed``. The paper
        reports the average of all grades.
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
        raise UsageError(f"judge_prompts.jsonl of --data has no prompt '{name}'; use FastChat's file")
    try:
        text = prompts[name]["prompt_template"].format(**known)
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"the judge's prompt '{name}' has the unknown placeholder {error}; use FastChat's judge_prompts.jsonl"
        ) from error
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
        raise UsageError(f"{where} has no 'turns' of one or two strings")
    return row


def _turns(row: Record, where: str) -> list[str]:
    try:
        turns = row["choices"][0]["turns"]
    except (LookupError, TypeError):
        turns = None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise UsageError(f"{where} has no 'choices' with the 'turns' of an answer")
    return turns
