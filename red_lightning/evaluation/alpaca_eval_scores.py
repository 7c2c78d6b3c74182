"""AlpacaEval: the rate at which a judge prefers a model's outputs to reference outputs."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from huggingface_hub import hf_hub_download

from red_lightning import hub
from red_lightning.data.hub_rows import Row
from red_lightning.data.local_files import file_records
from red_lightning.errors import UsageError
from red_lightning.jsonl import Record

PAPERS_ANNOTATOR = "alpaca_eval_gpt4"
"""GPT-4 against text-davinci-003 (paper, appendix A.5): AlpacaEval 1's annotator."""

REFERENCES = "tatsu-lab/alpaca_eval"
"""Hub data set with AlpacaEval's 805 instructions and the outputs of text-davinci-003 (CC BY-NC 4.0)."""


def find_references(place: str, revision: str | None = None) -> Path:
    """Return the file of instructions and reference outputs, downloaded if needed.

    Args:
        place: A file, or a hub data set with ``alpaca_eval.json``, such as :data:`REFERENCES`.
        revision: Branch, tag or commit of the data set.

    Raises:
        UsageError: Neither exists, or the hub is unreachable.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    if path.suffix or path.is_absolute() or place.count("/") != 1:
        raise UsageError(f"the file '{place}' of --references does not exist; pass a file, or '{REFERENCES}'")
    with hub.explained("data set", place, revision):
        file = "alpaca_eval.json"
        return Path(
            hf_hub_download(place, file, repo_type="dataset", revision=revision, local_files_only=hub.offline())
        )


def read_outputs(path: Path, limit: int | None = None) -> list[Record]:
    """Read outputs in AlpacaEval's format. The package would multiply repeated instructions.

    Args:
        path: A JSON or JSONL file of rows with ``instruction`` and ``output``.
        limit: Maximum number of rows; None reads all.

    Raises:
        UsageError: The file is missing or invalid, or repeats an instruction.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    for where, row in file_records(str(path), ["instruction", "output"]):
        if not isinstance(row["instruction"], str) or not isinstance(row["output"], str) or not row["instruction"]:
            raise UsageError(f"{where} has no strings as 'instruction' and 'output'")
        if row["instruction"] in seen:
            raise UsageError(f"{where} repeats an instruction; remove one of the rows")
        seen.add(row["instruction"])
        rows.append(row)
    return rows[:limit]


def read_preferences(path: Path) -> list[float | None]:
    """Return the preferences of a file of AlpacaEval's annotations.

    Raises:
        UsageError: The file is missing or invalid, or a preference is not between 0 and 2.
    """
    preferences = []
    for where, row in file_records(str(path), ["preference"]):
        value = row["preference"]
        if value is not None and not (isinstance(value, int | float) and (0 <= value <= 2 or value != value)):
            raise UsageError(f"{where} has the preference {value!r}, but it must lie between 0 and 2")
        preferences.append(value)
    return preferences


def matching(outputs: Sequence[Record], references: Sequence[Record], what: str) -> list[Record]:
    """Return the outputs for the references' instructions, in their order.

    Raises:
        UsageError: An instruction has no output. The package would drop the instruction.
    """
    by_instruction = {row["instruction"]: row for row in outputs}
    missing = sum(row["instruction"] not in by_instruction for row in references)
    if missing:
        raise UsageError(f"{what} has no output for {missing} of the {len(references)} instructions of --references")
    return [by_instruction[row["instruction"]] for row in references]


def win_rate(preferences: Iterable[float | None]) -> dict[str, float | int | None]:
    """Return the win rate of AlpacaEval's leaderboards, without the package, which may not be installed.

    Args:
        preferences: 1 prefers the reference, 2 the output; values between them are weighted; 1.5 and 0 are draws. None
            and NaN mark missing judgments.

    Returns:
        ``win_rate`` and its ``standard_error`` in percent (None if too few judgments), and the counts ``wins``,
        ``losses``, ``draws``, ``judged`` and ``failed``.
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
