"""AlpacaEval: the share of a judge's preferences for a model over reference answers."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from huggingface_hub import hf_hub_download

from red_lightning import hub
from red_lightning.data.local_files import file_records
from red_lightning.errors import UsageError
from red_lightning.jsonl import Record

PAPERS_ANNOTATOR = "alpaca_eval_gpt4"
"""GPT-4 against text-davinci-003 (paper, appendix A.5): AlpacaEval 1's annotator."""

REFERENCES = "tatsu-lab/alpaca_eval"
"""Where the hub has AlpacaEval's 805 instructions with the answers of text-davinci-003 (CC BY-NC 4.0)."""


def find_references(place: str, revision: str | None = None) -> Path:
    """The file of instructions and reference answers.

    Args:
        place: A file, or a data set on the hub that holds ``alpaca_eval.json``, such as :data:`REFERENCES`.
        revision: Branch, tag or commit of the data set.

    Raises:
        UsageError: There is neither, or the hub cannot be reached.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    if path.suffix or path.is_absolute() or place.count("/") != 1:
        raise UsageError(f"the file '{place}' of --references does not exist; give a file, or '{REFERENCES}'")
    with hub.explained("data set", place, revision):
        file = "alpaca_eval.json"
        return Path(
            hf_hub_download(place, file, repo_type="dataset", revision=revision, local_files_only=hub.offline())
        )


def read_outputs(path: Path, limit: int | None = None) -> list[Record]:
    """Read answers in AlpacaEval's format, one for each instruction.

    Args:
        path: A JSON or JSONL file of rows with ``instruction`` and ``output``.
        limit: Read so many rows; None reads all.

    Raises:
        UsageError: The file is missing or damaged, or an instruction occurs twice.
    """
    rows = []
    seen: set[str] = set()
    for where, row in file_records(str(path), ["instruction", "output"]):
        if not isinstance(row["instruction"], str) or not isinstance(row["output"], str) or not row["instruction"]:
            raise UsageError(f"{where} has no texts as 'instruction' and 'output'")
        if row["instruction"] in seen:
            raise UsageError(f"{where} has an instruction that occurred before; remove one of the rows")
        seen.add(row["instruction"])
        rows.append(row)
    return rows[:limit]


def read_preferences(path: Path) -> list[float | None]:
    """The preferences of a file of AlpacaEval's annotations.

    Raises:
        UsageError: The file is missing or damaged, or a preference is none.
    """
    preferences = []
    for where, row in file_records(str(path), ["preference"]):
        value = row["preference"]
        if value is not None and not (isinstance(value, int | float) and (0 <= value <= 2 or value != value)):
            raise UsageError(f"{where} has the preference {value!r}, but it must lie between 0 and 2")
        preferences.append(value)
    return preferences


def matching(outputs: Sequence[Record], references: Sequence[Record], what: str) -> list[Record]:
    """The answers to the references' instructions, in their order.

    Raises:
        UsageError: Some have no answer.
    """
    by_instruction = {row["instruction"]: row for row in outputs}
    missing = sum(row["instruction"] not in by_instruction for row in references)
    if missing:
        raise UsageError(f"{what} has no answer to {missing} of the {len(references)} instructions of the references")
    return [by_instruction[row["instruction"]] for row in references]


def win_rate(preferences: Iterable[float | None]) -> dict[str, float | int | None]:
    """How often answers are preferred, as AlpacaEval's leaderboards count.

    Args:
        preferences: 1 where the reference is preferred, 2 where the answer is, between them where the judge is not
            sure, 1.5 or 0 for a draw; None or NaN where there is no judgment.

    Returns:
        ``win_rate`` and its ``standard_error`` in percent (None of too few judgments), and how many ``wins``,
        ``losses``, ``draws``, ``judged`` and ``failed`` there are.
    """
    given = list(preferences)
    known = [1.5 if value == 0 else float(value) for value in given if value is not None and not math.isnan(value)]
    return {
        "win_rate": 100 * fmean(value - 1 for value in known) if known else None,
        "standard_error": 100 * stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None,
        "wins": sum(value > 1.5 for value in known),
        "losses": sum(value < 1.5 for value in known),
        "draws": sum(value == 1.5 for value in known),
        "judged": len(known),
        "failed": len(given) - len(known),
    }
