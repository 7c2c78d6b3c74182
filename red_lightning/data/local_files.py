"""Read rows from local files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from red_lightning.data.file_readers import COMPRESSED, READERS, ending_of
from red_lightning.data.hub_rows import require_columns
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError, nearest


class FileRow(dict[str, Any]):
    """The values of a row by column, and which row it is.

    Attributes:
        number: Its number in the file, from 0, blank lines not counted.
        id: What its column ``id`` says; None if there is none.
    """

    def __init__(self, values: Mapping[str, Any], number: int, id: Any = None) -> None:
        super().__init__(values)
        self.number, self.id = number, id

    @property
    def identity(self) -> dict[str, Any]:
        """The number as ``row``, and the ``id`` if there is one."""
        return {"row": self.number, **({} if self.id is None else {"id": self.id})}


def file_rows(path: str, columns: Sequence[str], report: RowReport | None = None) -> list[FileRow]:
    """Rows of a file, all values as text.

    Args:
        path: The file, as :func:`file_records` reads it.
        columns: The columns to read; for a text file the one name that its lines get.
        report: Stops at bad rows, or leaves them out, and counts the columns that are not used; None stops.

    Raises:
        UsageError: The file is missing, empty, damaged, not UTF-8, of another format, or lacks a column, or a value is
            empty.
    """
    report, rows = report or RowReport(), []
    lines = columns if ending_of(path) == ".txt" else None
    for where, record in file_records(path, lines, report):
        with report.row(path):
            require_columns(columns, record, where)
            row = {column: as_text(record[column], f"{where}: '{column}'") for column in columns}
            if empty := [column for column, text in row.items() if not text.strip()]:
                raise UsageError(f"{where} has an empty '{empty[0]}'; fill it in or remove the row")
            rows.append(FileRow(row, record.number, record.id))
            report.leave_out(name for name, value in record.items() if name not in columns and not is_empty(value))
    report.finish(path)
    return rows


def renamed(own: Mapping[str, str], columns: Mapping[str, str] | None, known: Sequence[str]) -> dict[str, str]:
    """Return the file's name of each of our columns.

    Args:
        own: The names by the options of a data module, such as ``text_column``.
        columns: The names by the option ``columns``.
        known: Our columns.

    Raises:
        UsageError: ``columns`` has an unknown key, or another name than the option.
    """
    for ours, name in (columns or {}).items():
        if ours not in known:
            raise UsageError(f"data.columns has the key '{ours}', which is no column here; {nearest(ours, known)}")
        if own.get(ours, ours) not in (ours, name):
            raise UsageError(f"data.columns says '{name}' and data.{ours}_column '{own[ours]}'. Leave one of them out")
    return {**own, **(columns or {})}


def file_records(
    path: str, columns: Sequence[str] | None, report: RowReport | None = None
) -> Iterator[tuple[str, FileRow]]:
    """Where in a file each of its rows is, and its values as they are stored.

    Args:
        path: The file; its ending says the format (``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``, ``.parquet``, ``.json``
            with one list of objects, or ``.txt`` with one text per line), and ``.gz``, ``.bz2``, ``.xz`` or ``.zst``
            behind it that it is compressed. CSV, TSV and text files hold texts only.
        columns: The columns to read, or None for all; for a text file the one name that its lines get.
        report: Stops at bad rows, or leaves them out; None stops. What it yields is not yet counted as used.

    Raises:
        UsageError: The file is missing, empty, damaged, not UTF-8, of another format, or lacks a column.
    """
    file = Path(path).expanduser()
    ending = ending_of(file)
    if not file.is_file():
        raise UsageError(f"the data file '{path}' does not exist")
    if ending not in READERS:
        raise UsageError(
            f"the data file '{path}' has an unknown ending: give one of {', '.join(READERS)}, "
            f"perhaps with one of {', '.join(COMPRESSED)} behind it"
        )
    report, count = report or RowReport(), 0
    report.begin(path)
    for number, record in READERS[ending](file, columns, report.quoting):
        where = f"{'row' if ending in ('.parquet', '.json') else 'line'} {number} of '{path}'"
        if record is None:
            report.blank[path] += 1
            continue
        count += 1
        if isinstance(record, UsageError):
            report.refuse(path, record)
        else:
            require_columns(columns or (), record, where)
            yield where, FileRow(record, count - 1, record.get("id"))
    if not count:
        raise UsageError(f"the data file '{path}' has no rows")


def standing_in(split: str, files: Mapping[str, str | None]) -> str:
    """The split that is read: without a file, prediction reads the test split, and that the validation split.

    Args:
        split: The split that is asked for.
        files: The file of each split, or None.
    """
    for without_file, other in (("predict", "test"), ("test", "validation")):
        if split == without_file and files[split] is None:
            split = other
    return split


def is_empty(value: Any) -> bool:
    """Return whether a value says nothing: null, NaN, blank text, or an empty list or object."""
    blank = isinstance(value, str) and not value.strip()
    return value is None or value != value or blank or (isinstance(value, list | dict | tuple) and not value)


def as_text(value: Any, where: str) -> str:
    """A stored value as text; a missing one as the empty text.

    Raises:
        UsageError: It is a list or an object, or no text that UTF-8 can hold.
    """
    if not isinstance(value, str | int | float | None):
        raise UsageError(f"{where} is no text but {json.dumps(value, default=str)[:40]}")
    if value is None or value != value:  # NaN is how a table of floats spells a missing value
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, from a JSON escape
        raise UsageError(f"{where} is no text that UTF-8 can hold: {error.reason}") from error
    return text
