"""Read rows from the hub, from a local folder laid out like a hub repository, or from the user's own files."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from red_lightning import hub
from red_lightning.errors import UsageError, nearest

Row = dict[str, Any]
Records = Iterator[tuple[int, dict[str, Any]]]


def hub_rows(
    path: str, split: str, columns: Sequence[str], revision: str | None = None, name: str | None = None
) -> list[Row]:
    """Rows of one split of a data set on the hub or in a local folder laid out like a hub repository.

    Classes come as their names (None where a row has no label), all else as it is stored.

    Args:
        path: Hub id or folder.
        split: Name of the split.
        columns: The columns to read.
        revision: Branch, tag or commit on the hub; ignored for a folder.
        name: Configuration of the data set, if it has several.

    Raises:
        UsageError: The data set, configuration, split or a column does not exist, or the hub cannot be reached.
    """
    from datasets import DownloadMode, load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = hub.local_folder(path)
    options: dict[str, Any] = {"download_mode": DownloadMode.REUSE_DATASET_IF_EXISTS}
    if folder is not None:
        options["cache_dir"] = str(_cache_of(folder))
    elif revision is not None:
        options["revision"] = revision
    offline = folder is None and hub.offline()
    if offline and not _cached(path):
        raise UsageError(hub.unreachable("data set", path))
    if offline and name is not None and not _cached(path, name):
        raise UsageError(hub.unreachable(f"configuration '{name}' of the data set", path))
    try:
        with hub.explained("data set", path, revision), hub.cut_off(offline):
            table = load_dataset(str(folder or path), name, split=split, **options)
    except DatasetNotFoundError as error:
        where = "nothing to read in this folder" if folder else "check the id, the revision and your access"
        raise UsageError(f"the data set '{path}' cannot be found: {where}") from error
    except (ValueError, FileNotFoundError, RuntimeError, DatasetsError) as error:
        raise UsageError(_unreadable(path, split, name, str(error))) from error
    _require_columns(columns, table.column_names, f"the data set '{path}'")
    values = [_with_names(table[column][:], table.features[column]) for column in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _unreadable(path: str, split: str, name: str | None, why: str) -> str:
    # datasets tells which configurations there are in its message only
    if found := re.search(r"available configs: \[(.*)\]|BuilderConfig .* not found. Available: \[(.*)\]", why):
        known = re.findall(r"'([^']*)'", found[1] or found[2])
        if name is None:
            return f"the data set '{path}' has several configurations; name one of {', '.join(known)}"
        return f"the data set '{path}' has no configuration '{name}': {nearest(name, known)}"
    of = f"the configuration '{name}' of " if name is not None else ""
    return f"split '{split}' of {of}the data set '{path}' cannot be read: " + why.split("\n")[0]


def _with_names(values: list[Any], feature: Any) -> list[Any]:
    """The values of a column, with the names of classes in place of their numbers."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel):
        return values
    names = dict(enumerate(feature.names))
    return [names.get(value) for value in values]  # -1 and null say that a row has no label


def hub_commit(path: str, revision: str | None) -> str | None:
    """The commit that a revision of a data set resolves to; None for a folder or without a connection."""
    from huggingface_hub import HfApi

    if hub.local_folder(path) is not None or hub.offline():
        return None
    with hub.explained("data set", path, revision):
        return HfApi().dataset_info(path, revision=revision, timeout=10).sha


def file_rows(path: str, columns: Sequence[str]) -> list[Row]:
    """Rows of a CSV, TSV, JSONL, Parquet or text file; all values as text, missing ones as the empty text.

    Args:
        path: The file; its ending says the format (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, or ``.txt`` with one
            text per line).
        columns: The columns to read; for a text file the one name that its lines get.

    Raises:
        UsageError: The file is missing, empty, damaged, not UTF-8, of another format, or lacks a column.
    """
    file = Path(path).expanduser()
    ending = file.suffix.lower()
    if not file.is_file():
        raise UsageError(f"the data file '{path}' does not exist")
    if ending not in READERS:
        raise UsageError(f"the data file '{path}' has an unknown ending: give one of {', '.join(READERS)}")
    rows = []
    for number, record in READERS[ending](file, columns):
        where = f"{'row' if ending == '.parquet' else 'line'} {number} of '{path}'"
        _require_columns(columns, record, where)
        rows.append({column: _as_text(record[column], f"{where}: '{column}'") for column in columns})
    if not rows:
        raise UsageError(f"the data file '{path}' has no rows")
    return rows


def _as_text(value: Any, where: str) -> str:
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


def require_text(rows: Sequence[Row], where: str) -> None:
    """Refuse empty texts.

    Raises:
        UsageError: Names the first row (counted from 1) and column that is empty.
    """
    for number, row in enumerate(rows, start=1):
        for column, text in row.items():
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"row {number} of {where} has an empty '{column}'; fill it in or remove the row")


def _utf8(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"line {line} of '{file}' is not UTF-8; save the file as UTF-8") from error


def _read_csv(file: Path, columns: Sequence[str]) -> Records:
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
            if None in record or None in record.values():
                fields = len(reader.fieldnames or ())
                raise UsageError(
                    f"line {reader.line_num} of '{file}' does not have {fields} fields like the first line; "
                    "quote fields that contain the delimiter"
                )
            yield reader.line_num, record
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num + 1} of '{file}' is not valid CSV: {error}") from error


def _read_jsonl(file: Path, columns: Sequence[str]) -> Records:
    for number, line in enumerate(_utf8(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"line {number} of '{file}' is not valid JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise UsageError(f'line {number} of \'{file}\' is not a JSON object such as {{"source": "..."}}')
        yield number, record


def _read_parquet(file: Path, columns: Sequence[str]) -> Records:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as source:
            present = source.schema_arrow.names
            _require_columns(columns, present, f"'{file}'")
            _refuse_repeated([name for name in present if name in columns], f"'{file}'")
            batches = source.iter_batches(columns=list(columns))
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
    except (ArrowException, OSError, ValueError) as error:
        why = str(error).split("\n")[0]
        raise UsageError(f"'{file}' is damaged or not a Parquet file: {why}") from error


def _read_lines(file: Path, columns: Sequence[str]) -> Records:
    if len(columns) > 1:
        raise UsageError(
            f"the text file '{file}' has one text per line and so no column '{columns[1]}'; "
            "give a .csv, .tsv, .jsonl or .parquet file"
        )
    for number, line in enumerate(_utf8(file).split("\n"), start=1):
        if line.strip():
            yield number, {columns[0]: line.removesuffix("\r")}


READERS: dict[str, Callable[[Path, Sequence[str]], Records]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{where} names the column '{repeated[0]}' twice; give each its own name")


def _require_columns(wanted: Sequence[str], present: Any, where: str) -> None:
    for column in wanted:
        if column not in present:
            raise UsageError(f"{where} has no column '{column}': {nearest(column, [str(name) for name in present])}")


def _cache_of(folder: Path) -> Path:
    """A cache of its own for each state of a folder: datasets tells folders of one name apart by nothing else."""
    from datasets import config

    files = sorted(path for path in folder.resolve().rglob("*") if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    return Path(config.HF_DATASETS_CACHE) / "folders" / key


def _cached(path: str, name: str = "") -> bool:
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, repository = path.split("/")
    return (Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(repository)]) / name).is_dir()
