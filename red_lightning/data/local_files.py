"""Read rows from local files."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from red_lightning.data.hub_rows import Row, require_columns
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError, nearest

Columns = Sequence[str] | None
Records = Iterator[tuple[int, dict[str, Any] | UsageError | None]]
"""The number of each line or row, and its values, the error if it has none, or None if it is blank."""


def file_rows(path: str, columns: Sequence[str], report: RowReport | None = None) -> list[Row]:
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
    lines = columns if Path(path).suffix.lower() == ".txt" else None
    for where, record in file_records(path, lines, report):
        with report.row(path):
            require_columns(columns, record, where)
            row = {column: as_text(record[column], f"{where}: '{column}'") for column in columns}
            if empty := [column for column, text in row.items() if not text.strip()]:
                raise UsageError(f"{where} has an empty '{empty[0]}'; fill it in or remove the row")
            rows.append(row)
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
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where in a file each of its rows is, and its values as they are stored.

    Args:
        path: The file; its ending says the format (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.json`` with one
            list of objects, or ``.txt`` with one text per line). CSV, TSV and text files hold texts only.
        columns: The columns to read, or None for all; for a text file the one name that its lines get.
        report: Stops at bad rows, or leaves them out; None stops. What it yields is not yet counted as used.

    Raises:
        UsageError: The file is missing, empty, damaged, not UTF-8, of another format, or lacks a column.
    """
    file = Path(path).expanduser()
    ending = file.suffix.lower()
    if not file.is_file():
        raise UsageError(f"the data file '{path}' does not exist")
    if ending not in READERS:
        raise UsageError(f"the data file '{path}' has an unknown ending: give one of {', '.join(READERS)}")
    report, empty = report or RowReport(), True
    report.begin(path)
    for number, record in READERS[ending](file, columns):
        empty = empty and record is None
        where = f"{'row' if ending in ('.parquet', '.json') else 'line'} {number} of '{path}'"
        if record is None:
            report.blank[path] += 1
        elif isinstance(record, UsageError):
            report.refuse(path, record)
        else:
            require_columns(columns or (), record, where)
            yield where, record
    if empty:
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


def _utf8(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"line {line} of '{file}' is not UTF-8; save the file as UTF-8") from error


def _read_csv(file: Path, columns: Columns) -> Records:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    csv.field_size_limit(2**31 - 1)  # texts may be longer than the module's own limit of 131,072 characters
    text = _utf8(file)
    first = text.split("\n", 1)[0]
    if ";" in first and delimiter not in first:
        raise UsageError(
            f"the columns of '{file}' are separated by semicolons; save it with commas, or as .tsv with tabs"
        )
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        _refuse_repeated(reader.fieldnames or (), f"the first line of '{file}'")
        for record in reader:
            ragged = None in record or None in record.values()
            why = f"does not have {len(reader.fieldnames or ())} fields like the first line"
            error = UsageError(f"line {reader.line_num} of '{file}' {why}; quote fields that contain the delimiter")
            yield reader.line_num, error if ragged else record
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num + 1} of '{file}' is not valid CSV: {error}") from error


def _read_jsonl(file: Path, columns: Columns) -> Records:
    for number, line in enumerate(_utf8(file).removesuffix("\n").split("\n"), start=1):
        where = f"line {number} of '{file}'"
        yield number, _object(line, where) if line.strip() else None


def _read_json(file: Path, columns: Columns) -> Records:
    records = _json(_utf8(file), f"'{file}'")
    if not isinstance(records, list):
        raise UsageError(f"'{file}' does not hold a list of JSON objects; give one, or a .jsonl file")
    for number, record in enumerate(records, start=1):
        yield number, _object(record, f"row {number} of '{file}'")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f" (line {error.lineno})" if "\n" in text else ""
        raise UsageError(f"{where} is not valid JSON: {error.msg}{at}") from error
    except RecursionError as error:
        raise UsageError(f"{where} is not usable JSON: it is nested too deeply") from error


def _object(record: Any, where: str) -> dict[str, Any] | UsageError:
    """Return a JSON object, parsed if it is a text, or the error."""
    try:
        record = _json(record, where) if isinstance(record, str) else record
    except UsageError as error:
        return error
    if not isinstance(record, dict):
        return UsageError(f'{where} is not a JSON object such as {{"source": "..."}}')
    return record


def _read_parquet(file: Path, columns: Columns) -> Records:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as source:
            present = source.schema_arrow.names
            wanted = present if columns is None else list(columns)
            require_columns(wanted, present, f"'{file}'")
            _refuse_repeated([name for name in present if name in wanted], f"'{file}'")
            batches = source.iter_batches(columns=wanted)
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
    except (ArrowException, OSError, ValueError) as error:
        why = str(error).split("\n")[0]
        raise UsageError(f"'{file}' is damaged or not a Parquet file: {why}") from error


def _read_lines(file: Path, columns: Columns) -> Records:
    name, *others = columns or ("text",)
    if others:
        raise UsageError(
            f"the text file '{file}' has one text per line and so no column '{others[0]}'; "
            "give a .csv, .tsv, .jsonl or .parquet file"
        )
    for number, line in enumerate(_utf8(file).removesuffix("\n").split("\n"), start=1):
        yield number, {name: line.removesuffix("\r")} if line.strip() else None


READERS: dict[str, Callable[[Path, Columns], Records]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
    ".json": _read_json,
}


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{where} names the column '{repeated[0]}' twice; give each its own name")
