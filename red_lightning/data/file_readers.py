"""Read the records of a file, by the ending of its name."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from lzma import LZMAError
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ArrowException

from red_lightning.data.hub_rows import require_columns
from red_lightning.errors import UsageError
from red_lightning.tables import Quoting, table_rows

Columns = Sequence[str] | None
Records = Iterator[tuple[int, dict[str, Any] | UsageError | None]]
"""The number of each line or row, and its values, the error if it has none, or None if it is blank."""


def ending_of(path: str | Path) -> str:
    """Return the ending of a file's name that says its format, in lower case: ``.csv`` of ``rows.csv.gz``."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def _bytes(file: Path) -> bytes:
    """Return the contents of a file, which may be compressed."""
    unpack = COMPRESSED.get(file.suffix.lower())
    try:
        return unpack(file.read_bytes()) if unpack else file.read_bytes()
    except (OSError, EOFError, ValueError, LZMAError, zlib.error, ArrowException) as error:
        raise UsageError(f"the data file '{file}' cannot be read: {str(error).splitlines()[0]}") from error


def _utf8(file: Path) -> str:
    content = _bytes(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"line {line} of '{file}' is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"line {line} of '{file}' holds a NUL byte; remove it, or save the file as UTF-8")
    return text


def _read_csv(file: Path, columns: Columns, quoting: Quoting) -> Records:
    delimiter = "\t" if ending_of(file) == ".tsv" else ","
    text = _utf8(file)
    first = text.split("\n", 1)[0]
    if ";" in first and delimiter not in first:
        raise UsageError(
            f"the columns of '{file}' are separated by semicolons; save it with commas, or as .tsv with tabs"
        )
    names: list[str] = []
    for line, fields in table_rows(text, str(file), delimiter, quoting):
        if not names:
            if isinstance(fields, UsageError):
                raise fields
            names = fields
            _refuse_repeated(names, f"the first line of '{file}'")
        elif not fields:
            yield line, None
        elif isinstance(fields, UsageError):
            yield line, fields
        elif len(fields) == len(names):
            yield line, dict(zip(names, fields, strict=True))
        else:
            counts = f"has {len(fields)} fields, not the {len(names)} fields of the first line"
            yield line, UsageError(f"line {line} of '{file}' {counts}; quote fields that contain the delimiter")


def _read_jsonl(file: Path, columns: Columns, quoting: Quoting) -> Records:
    for number, line in enumerate(_utf8(file).removesuffix("\n").split("\n"), start=1):
        where = f"line {number} of '{file}'"
        yield number, _object(line, where) if line.strip() else None


def _read_json(file: Path, columns: Columns, quoting: Quoting) -> Records:
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


def _read_parquet(file: Path, columns: Columns, quoting: Quoting) -> Records:
    from pyarrow.parquet import ParquetFile

    packed = file.suffix.lower() in COMPRESSED
    try:
        with ParquetFile(io.BytesIO(_bytes(file)) if packed else file) as source:
            present = source.schema_arrow.names
            wanted = present if columns is None else list(columns)
            require_columns(wanted, present, f"'{file}'")
            _refuse_repeated([name for name in present if name in wanted], f"'{file}'")
            batches = source.iter_batches(columns=wanted)
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
    except (ArrowException, OSError, ValueError) as error:
        why = str(error).split("\n")[0]
        raise UsageError(f"'{file}' is damaged or not a Parquet file: {why}") from error


def _read_lines(file: Path, columns: Columns, quoting: Quoting) -> Records:
    name, *others = columns or ("text",)
    if others:
        raise UsageError(
            f"the text file '{file}' has one text per line and so no column '{others[0]}'; "
            "give a .csv, .tsv, .jsonl or .parquet file"
        )
    for number, line in enumerate(_utf8(file).removesuffix("\n").split("\n"), start=1):
        yield number, {name: line.removesuffix("\r")} if line.strip() else None


READERS: dict[str, Callable[[Path, Columns, Quoting], Records]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
    ".json": _read_json,
}


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda content: pyarrow.input_stream(io.BytesIO(content), compression="zstd").read(),
}
"""What unpacks a file of each ending, which follows that of its format."""


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{where} names the column '{repeated[0]}' twice; give each its own name")
