"""Answers to a benchmark's questions, in the benchmark's file format, saved one by one."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from red_lightning.adapters import Edited
from red_lightning.atomic_files import require_new, write_whole
from red_lightning.data.messages import Message
from red_lightning.data.prompt_templates import make_template
from red_lightning.errors import UsageError, cannot_write, require_range
from red_lightning.evaluation.scored_models import Candidate
from red_lightning.generation import PromptStyle, Writer
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.prompts import trained_style
from red_lightning.generation.writer import trained_decoding
from red_lightning.jsonl import Record, Records

SETTINGS = "settings.json"

FIRST = ("edits", "answers", "weights", "commit")
"""The settings that are compared first: whose answers they are decides what else differs."""

OUTPUT = {"instruction": str, "output": str}
"""What a record of an answer to AlpacaEval holds."""

ANSWER = {"question_id": int | str, "choices": list}
"""What a record of an answer to MT-Bench holds."""

Item = TypeVar("Item")


class Contestant:
    """A model that answers; it is loaded when it must.

    Args:
        candidate: The model.
        changes: What is decoded otherwise than in training.
        template: How a conversation becomes tokens; None for how the edits were trained, and for the tokenizer's own
            chat template if there are no edits.
        batch_size: Prompts that are answered at once; the answers do not depend on it.
        device: Where the model goes; None for a GPU if there is one.

    Attributes:
        settings: What the answers depend on, as plain values.

    Raises:
        UsageError: The model continues texts, or its tokenizer lacks the template.
    """

    def __init__(
        self,
        candidate: Candidate,
        changes: DecodingChanges,
        template: PromptStyle | None,
        batch_size: int,
        device: str | None,
    ) -> None:
        require_range("batch_size", batch_size, 1)
        self._candidate, self._batch_size, self._device = candidate, batch_size, device
        self._template = _style(template, candidate.record, candidate.tokenizer())
        self._decoding = changes.of(trained_decoding(candidate.record))
        known = {name: value for name, value in candidate.identity.items() if name != "model"}  # however it is spelt
        self.settings = {**known, "template": self._template, "decoding": asdict(self._decoding)}

    def writer(self, temperature: float | None = None) -> Writer:
        """The model as it answers.

        Args:
            temperature: What its decoding has in place of its own; None for its own.

        Raises:
            UsageError: It cannot be loaded, or is none that answers.
        """
        decoding = self._decoding if temperature is None else replace(self._decoding, temperature=temperature)
        return Writer(self._model, decoding, self._template, self._batch_size)

    @cached_property
    def _model(self) -> Edited:
        return self._candidate.load(self._device)


def _style(template: PromptStyle | None, record: Record, tokenizer: Any) -> PromptStyle:
    """How conversations become tokens."""
    style = template or trained_style(record, tokenizer)
    if style not in ("paper", "chat"):
        raise UsageError("this model continues texts; give --template paper or chat to have it answer")
    make_template(style, tokenizer)  # which may refuse
    return style


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for the answers and judgments of one model, or go on in the one that was begun for it.

    Args:
        folder: The folder.
        settings: What the answers depend on.

    Raises:
        UsageError: The folder holds something else, or answers that were made otherwise.
    """
    wanted = json.loads(json.dumps(settings))
    kept = folder / SETTINGS
    try:
        if kept.is_file():
            found = json.loads(kept.read_text(encoding="utf-8"))
            for name in dict.fromkeys((*FIRST, *wanted, *found)):
                if found.get(name) != wanted.get(name):
                    raise UsageError(
                        f"'{folder}' was begun with another {name} ({_short(found.get(name))}, now "
                        f"{_short(wanted.get(name))}); give another --output"
                    )
        else:
            require_new(folder, "--output")
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps(wanted, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(f"the folder '{folder}'", error, "give another --output") from error
    except (ValueError, AttributeError) as error:
        raise UsageError(f"'{kept}' is damaged; give another --output") from error


def model_outputs(
    writer: Callable[[], Writer],
    instructions: Sequence[Record],
    records: Records,
    generator: str,
    say: Callable[[str], None],
) -> list[Record]:
    """Answer AlpacaEval's instructions that have no answer yet.

    Args:
        writer: The model, which is loaded if it must.
        instructions: Rows with ``instruction``; their ``dataset`` is handed on.
        records: Where each answer is kept, with the fields :data:`OUTPUT`.
        generator: What the answers call the model.
        say: Is told how far it is.

    Returns:
        The rows of AlpacaEval's ``model_outputs.json``: ``dataset``, ``instruction``, ``output`` and ``generator``, and
        ``flag`` where a prompt is too long: its output is empty.
    """
    done = {row["instruction"]: row for row in records.rows}
    pending = [row for row in instructions if row["instruction"] not in done]
    if not pending:
        return [done[row["instruction"]] for row in instructions]
    model = writer()
    for batch in _batches(pending, model.batch_size):
        texts = _answer(model, [[{"role": "user", "content": row["instruction"]}] for row in batch])
        for row, (text, flag) in zip(batch, texts, strict=True):
            kept = {"dataset": row["dataset"]} if "dataset" in row else {}
            record = {**kept, "instruction": row["instruction"], "output": text, "generator": generator}
            records.append({**record, **({"flag": flag} if flag else {})})
            done[row["instruction"]] = records.rows[-1]
        say(f"answered {len(done)} of {len(instructions)} instructions")
    return [done[row["instruction"]] for row in instructions]


def model_answers(
    writer: Callable[[str], Writer],
    questions: Sequence[Record],
    records: Records,
    model_id: str,
    say: Callable[[str], None],
) -> dict[Any, Record]:
    """Answer MT-Bench's questions that have no answer yet, turn by turn.

    Args:
        writer: The model, as it answers questions of a category.
        questions: Rows with ``question_id``, ``category`` and ``turns``.
        records: Where the answers to a question are kept, as in FastChat's ``model_answer``: with the fields
            :data:`ANSWER`.
        model_id: What the answers call the model.
        say: Is told how far it is.

    Returns:
        By question id, rows with ``choices``, whose first holds the ``turns``, and ``flags`` by turn where a prompt is
        too long or the turn before has no answer: the answer is empty.
    """
    done = {row["question_id"]: row for row in records.rows}
    for category in dict.fromkeys(question["category"] for question in questions):
        pending = [row for row in questions if row["category"] == category and row["question_id"] not in done]
        if not pending:
            continue
        model = writer(category)
        for batch in _batches(pending, model.batch_size):
            for question, turns, flags in zip(batch, *_converse(model, batch), strict=True):
                record = {
                    "question_id": question["question_id"],
                    "answer_id": uuid.uuid4().hex,
                    "model_id": model_id,
                    "choices": [{"index": 0, "turns": turns}],
                    "tstamp": time.time(),
                }
                records.append({**record, **({"flags": flags} if flags else {})})
                done[question["question_id"]] = records.rows[-1]
            say(f"answered {len(done)} of {len(questions)} questions")
    return {question["question_id"]: done[question["question_id"]] for question in questions}


def _converse(writer: Writer, questions: Sequence[Record]) -> tuple[list[list[str]], list[dict[str, str]]]:
    """The answers to each turn of some questions, and by turn what is wrong with them."""
    conversations: list[list[Message]] = [[] for _ in questions]
    turns: list[list[str]] = [[] for _ in questions]
    flags: list[dict[str, str]] = [{} for _ in questions]
    for turn in range(max(len(question["turns"]) for question in questions)):
        asked = [index for index, question in enumerate(questions) if turn < len(question["turns"])]
        silent = [index for index in asked if turn and not turns[index][-1]]
        for index in silent:  # templates have no place for an answer that is empty
            turns[index].append("")
            flags[index][str(turn + 1)] = "the turn before has no answer"
        asked = [index for index in asked if index not in silent]
        for index in asked:
            conversations[index].append({"role": "user", "content": questions[index]["turns"][turn]})
        for index, (text, flag) in zip(asked, _answer(writer, [conversations[i] for i in asked]), strict=True):
            conversations[index].append({"role": "assistant", "content": text})
            turns[index].append(text)
            if flag:
                flags[index][str(turn + 1)] = flag
    return turns, flags


def _answer(writer: Writer, conversations: list[list[Message]]) -> list[tuple[str, str | None]]:
    """An answer to each conversation; an empty one, and why, where it leaves no room for one."""
    where = [f"prompt {number}" for number in range(1, len(conversations) + 1)]
    lengths = [len(tokens) for tokens in writer.prompts.whole(conversations, where)]
    limit = writer.prompts.limit
    fitting = [index for index, length in enumerate(lengths) if limit is None or length <= limit]
    texts = dict(zip(fitting, writer.answer([conversations[index] for index in fitting]), strict=True))
    return [
        (texts[index], None) if index in texts else ("", f"the prompt has {length} tokens, more than {limit}")
        for index, length in enumerate(lengths)
    ]


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _short(value: Any) -> str:
    return json.dumps(value)[:60]
