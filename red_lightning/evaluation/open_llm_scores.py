"""Scores of a model on lm-eval tasks, saved task by task."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from red_lightning.adapters import Edited
from red_lightning.adapters.record_checks import virtual_tokens_of
from red_lightning.atomic_files import require_new, write_whole
from red_lightning.errors import UsageError, cannot_write, require_range
from red_lightning.evaluation.leaderboard import LEADERBOARD, load_tasks, require_harness
from red_lightning.evaluation.scored_models import Candidate
from red_lightning.evaluation.scoring import SEED, score_tasks
from red_lightning.families.positions import positions_left
from red_lightning.generation import Writer

FILE = "open_llm.json"
"""The file of scores."""


@dataclass(frozen=True)
class Questions:
    """What is asked, and how.

    Attributes:
        num_fewshot: Solved examples before each question; None for the paper's number or the task's own.
        limit: Questions of each task; None for all.
        include_path: A folder of task descriptions of the user's own.
        chat: Whether questions are asked in the model's template for conversations.
        system: What precedes each question; a system message if ``chat``.
    """

    num_fewshot: int | None = None
    limit: int | None = None
    include_path: str | None = None
    chat: bool = False
    system: str | None = None


class Scores:
    """The file of scores of one model, which a run that was stopped goes on with.

    Args:
        folder: Where the file is, or will be.
        candidate: The model.
        questions: What is asked.

    Raises:
        UsageError: The folder holds something else, or the scores of another model.
    """

    def __init__(self, folder: Path, candidate: Candidate, questions: Questions) -> None:
        self.path = folder / FILE
        libraries = {name: version(name) for name in ("lm-eval", "transformers", "torch")}
        given = {name: value for name, value in asdict(questions).items() if name not in ("chat", "system") or value}
        asked = {**given, "seed": SEED, "lm_eval": libraries["lm-eval"]}
        if questions.include_path is not None:
            asked["include_path"] = _digest(Path(questions.include_path))
        self.settings = {**candidate.identity, **asked}
        self.content: dict[str, Any] = {"suite": "open_llm", "model": candidate.identity["model"], "tasks": {}}
        if self.path.exists():
            self.content = self._read()
        self.content["libraries"] = libraries
        try:
            if not self.path.exists():
                require_new(folder, "--output")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(f"the folder '{folder}'", error, "give another --output") from error

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            model, _ = content["model"], content["tasks"].items()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"'{self.path}' holds something else than scores; give another --output") from error
        if model != self.content["model"]:
            raise UsageError(f"'{self.path}' holds the scores of the model '{model}'; give another --output")
        return content

    def has(self, name: str) -> bool:
        """Whether a task was scored with these very settings."""
        return self.content["tasks"].get(name, {}).get("settings") == self.settings

    def was_asked_otherwise(self, name: str) -> bool:
        """Whether there is a score of a task that other settings gave, or another state of the model."""
        return name in self.content["tasks"] and not self.has(name)

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Write the score of a task.

        Raises:
            UsageError: The file cannot be written.
        """
        self.content["tasks"][name] = {**found, "settings": self.settings}
        self.content["average"] = self.average()
        try:
            write_whole(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise cannot_write(f"'{self.path}'", error, "give another --output") from error

    def average(self) -> float | None:
        """The mean over the six benchmarks, as in Table 18; None unless each was asked with these settings."""
        if not all(self.has(name) for name in LEADERBOARD):
            return None
        return sum(self.content["tasks"][name]["score"] for name in LEADERBOARD) / len(LEADERBOARD)


def score_all(
    candidate: Candidate,
    names: Sequence[str],
    questions: Questions,
    folder: Path,
    batch_size: int = 8,
    device: str | None = None,
    tell: Callable[[str], None] = print,
) -> Scores:
    """Score a model on tasks, and keep each score as soon as it is there.

    Args:
        candidate: The model; loaded if there is a task to score.
        names: Of :data:`~red_lightning.evaluation.leaderboard.LEADERBOARD`, or of lm-eval's tasks.
        questions: What is asked.
        folder: Where the scores are kept.
        batch_size: Requests at once; it changes the time, not the scores.
        device: Where the model goes; None for a GPU if there is one.
        tell: What is done with the lines that say how far it is.

    Returns:
        The scores, those of an earlier run with the same settings included.

    Raises:
        UsageError: A task does not exist, or cannot be read or scored; the folder holds something else.
    """
    require_harness()
    require_range("batch_size", batch_size, 1)
    if questions.limit is not None:
        require_range("limit", questions.limit, 1)
    if questions.num_fewshot is not None:
        require_range("num_fewshot", questions.num_fewshot, 0)
    scores = Scores(folder, candidate, questions)
    todo = [name for name in dict.fromkeys(names) if not scores.has(name)]
    if kept := [name for name in dict.fromkeys(names) if name not in todo]:
        tell(f"scored before, and kept: {', '.join(kept)} ({scores.path})")
    if changed := [name for name in todo if scores.was_asked_otherwise(name)]:
        again = ", ".join(changed)
        tell(f"scored before with other settings or another state of the model, and will be scored anew: {again}")
    # what cannot be read is refused before the first hour is spent
    loaded = {name: load_tasks(name, questions.num_fewshot, questions.include_path) for name in todo}
    model = language_model(candidate.load(device), batch_size, sys.stderr.isatty(), questions.chat) if todo else None
    for number, name in enumerate(todo, start=1):
        tell(f"[{number}/{len(todo)}] {name} ...")
        started = time.monotonic()
        found = score_tasks(
            model, name, loaded.pop(name), questions.limit, chat=questions.chat, system=questions.system
        )
        scores.keep(name, {**found, "seconds": round(time.monotonic() - started, 1)})
        if found["shortened"]:
            tell(f"{found['shortened']} prompts of {name} were longer than the model reads, and lost their beginning")
    return scores


def _digest(folder: Path) -> str:
    """What changes when a description of a task does, or what it is made of."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:  # which lm-eval leaves there
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def language_model(edited: Edited, batch_size: int, progress: bool = False, chat: bool = False) -> Any:
    """A loaded model as lm-eval asks it.

    Args:
        edited: The model.
        batch_size: Requests at once.
        progress: Show a bar.
        chat: Ask in its template for conversations.

    Raises:
        UsageError: It has no such template, but continues texts.
    """
    from red_lightning.evaluation.language_model import LanguageModel

    taken = virtual_tokens_of(edited.record, "edits")
    limit, _ = positions_left(edited.backbone.config, taken)
    template = Writer(edited).prompts.template if chat else None
    if chat and template is None:
        raise UsageError("this model continues texts: it has no template for conversations; leave --chat_template out")
    return LanguageModel(edited.backbone, edited.tokenizer, batch_size, limit, progress, template)
