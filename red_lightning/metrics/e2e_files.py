"""Read the files of the official E2E script: text, or a table with a meaning representation per line."""

import re
from itertools import groupby
from pathlib import Path

from red_lightning.errors import UsageError
from red_lightning.tables import table_rows

# the headers that measure_scores.py recognizes by how they begin, case ignored
_SOURCE_HEADER = re.compile(r"mr|src|source|meaning|da\b|dial", re.IGNORECASE)
_TEXT_HEADER = re.compile(r"ref|human|trg|tgt|target|out|sys|pred", re.IGNORECASE)


def read_pairs(references: str | Path, predictions: str | Path) -> tuple[list[list[str]], list[str]]:
    """Read references and predictions, and pair them.

    Two tables are paired by their meaning representations, in any order. Otherwise a group of references belongs to the
    prediction at its place.

    Args:
        references: As :func:`read_references` reads it.
        predictions: As :func:`read_predictions` reads it.

    Returns:
        The groups of references, and the prediction of each.

    Raises:
        UsageError: A file cannot be read, a meaning representation is missing in one of them or has two predictions, or
            the counts differ.
    """
    if not (_is_table(references) and _is_table(predictions)):
        groups, texts = read_references(references), read_predictions(predictions)
        if len(groups) != len(texts):
            raise UsageError(
                f"{references} holds {len(groups)} groups of references but {predictions} holds {len(texts)} "
                "predictions; give one prediction per group"
            )
        return groups, texts
    known, found = _grouped(_read_table(Path(references))), _grouped(_read_table(Path(predictions)))
    for source, own in found.items():
        if source not in known:
            raise UsageError(f"{predictions} has the mr '{source:.80}', which {references} does not have; remove it")
        if len({*own}) > 1:
            raise UsageError(f"{predictions} has {len(own)} predictions of the mr '{source:.80}'; give one")
    if missing := [source for source in known if source not in found]:
        raise UsageError(
            f"{predictions} has no prediction of the mr '{missing[0]:.80}' ({len(missing)} of {len(known)} are missing)"
        )
    return [*known.values()], [found[source][0] for source in known]


def read_references(path: str | Path) -> list[list[str]]:
    """Read groups of references.

    Args:
        path: Plain text: one reference per line, groups separated by blank lines. If no blank line separates two
            references, every line is a group of its own, as the official script reads it. `.csv` or `.tsv`: a column of
            meaning representations and one of references; lines with the same representation form a group.

    Returns:
        One list of at least one reference per group, in the order in which the groups begin.

    Raises:
        UsageError: The file is missing, not a file, empty, not UTF-8, or a table of another shape.
    """
    path = Path(path)
    if _is_table(path):
        return [*_grouped(_read_table(path)).values()]
    groups = [list(group) for filled, group in groupby(_read_lines(path), key=bool) if filled]
    return [[line] for line in groups[0]] if len(groups) == 1 else groups


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
    return [text for _, text in _read_table(path)] if _is_table(path) else _read_lines(path)


def _is_table(path: str | Path) -> bool:
    return Path(path).suffix.lower() in (".csv", ".tsv")


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the texts of each meaning representation."""
    groups: dict[str, list[str]] = {}
    for source, text in pairs:
        groups.setdefault(source, []).append(text)
    return groups


def _content(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file")
    if not path.exists():
        raise UsageError(f"{path} does not exist; check the path")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}, is not UTF-8; convert the file to UTF-8") from None
    if not text.strip():
        raise UsageError(f"{path} is empty; give a file with at least one line of text")
    return text


def _read_lines(path: Path) -> list[str]:
    """Lines stripped of surrounding space; only line feeds end one, as the official script counts."""
    return [line.strip() for line in _content(path).removesuffix("\n").split("\n")]


def _read_table(path: Path) -> list[tuple[str, str]]:
    """Pairs of meaning representation and text."""
    text = _content(path)
    delimiter = "\t" if "\t" in text.lstrip().split("\n", 1)[0] else ","
    table: list[list[str]] = []
    for line, fields in table_rows(text, str(path), delimiter):
        if isinstance(fields, UsageError):
            raise fields
        if table and fields and len(fields) != len(table[0]):
            raise UsageError(f"{path}, line {line}, has {len(fields)} columns where the first line has {len(table[0])}")
        table += [fields] if "".join(fields).strip() else []
    source, column, has_header = _columns(path, table[0])
    pairs = [(row[source].strip(), row[column].strip()) for row in table[has_header:]]
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
