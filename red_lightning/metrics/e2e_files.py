"""Read the files of the official E2E script: text, or a table with a meaning representation per line."""

import csv
import re
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from red_lightning.errors import UsageError

_TABLES = {".csv", ".tsv"}
# the headers that measure_scores.py recognizes by how they begin, case ignored
_SOURCE_HEADER = re.compile(r"mr|src|source|meaning|da\b|dial", re.IGNORECASE)
_TEXT_HEADER = re.compile(r"ref|human|trg|tgt|target|out|sys|pred", re.IGNORECASE)


def read_references(path: str | Path) -> list[list[str]]:
    """Read groups of references.

    Args:
        path: Plain text: one reference per line, groups separated by blank lines (without any blank line,
            every line is a group of its own). `.csv` or `.tsv`: a column of meaning representations and one
            of references; consecutive lines with the same representation form a group.

    Returns:
        One list of at least one reference per group, in file order.

    Raises:
        UsageError: The file is missing, not a file, empty, not UTF-8, or a table of another shape.
    """
    path = Path(path)
    if path.suffix.lower() in _TABLES:
        return [[text for _, text in group] for _, group in groupby(_read_table(path), key=itemgetter(0))]
    lines = _read_lines(path)
    groups = [list(group) for filled, group in groupby(lines, key=bool) if filled]
    return [[line] for line in groups[0]] if len(groups) == 1 and "" not in lines else groups


def read_predictions(path: str | Path) -> list[str]:
    """Read predictions.

    Args:
        path: Plain text: one prediction per line, a blank line being an empty prediction. `.csv` or `.tsv`: a
            column of meaning representations and one of predictions.

    Returns:
        The predictions, in file order.

    Raises:
        UsageError: The file is missing, not a file, empty, not UTF-8, or a table of another shape.
    """
    path = Path(path)
    if path.suffix.lower() in _TABLES:
        return [text for _, text in _read_table(path)]
    return _read_lines(path)


def _read_lines(path: Path) -> list[str]:
    """Lines stripped of surrounding space; only line feeds end one, as the official script counts."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file")
    if not path.exists():
        raise UsageError(f"{path} does not exist; check the path")
    lines = []
    raw = path.read_bytes()
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError:
            raise UsageError(f"{path}, line {number}, is not UTF-8; convert the file to UTF-8") from None
    if not any(lines):
        raise UsageError(f"{path} is empty; give a file with at least one line of text")
    return lines


def _read_table(path: Path) -> list[tuple[str, str]]:
    """Pairs of meaning representation and text."""
    lines = [line for line in _read_lines(path) if line]
    table = list(csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ","))
    source, text, has_header = _columns(path, table[0])
    for number, row in enumerate(table, start=1):
        if len(row) != len(table[0]):
            raise UsageError(f"{path}, row {number}, has {len(row)} columns where the first row has {len(table[0])}")
    pairs = [(row[source].strip(), row[text].strip()) for row in table[has_header:]]
    if not pairs:
        raise UsageError(f"{path} has a header but no rows; give a file with at least one row")
    return pairs


def _columns(path: Path, first: list[str]) -> tuple[int, int, bool]:
    """Index of the representations, of the texts, and whether the first row is a header."""
    sources = [index for index, name in enumerate(first) if _SOURCE_HEADER.match(name)]
    texts = [index for index, name in enumerate(first) if _TEXT_HEADER.match(name)]
    if len(sources) == len(texts) == 1 and sources != texts:
        return sources[0], texts[0], True
    if len(first) == 2 and not sources and not texts:
        return 0, 1, False
    raise UsageError(f"{path} needs a header with the columns mr and ref, got: {', '.join(first)}")
