"""Read rows from the hub, from a local folder laid out like a hub repository, or from the user's own files."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from red_lightning import hub
from red_lightning.errors import UsageError, nearest

Row = dict[str, str]


def hub_rows(path: str, split: str, columns: Sequence[str], revision: str | None = None) -> list[Row]:
    """Rows of one split of a data set on the hub or in a local folder laid out like a hub repository.

    Args:
        path: Hub id or folder.
        split: Name of the split.
        columns: The columns to read.
        revision: Branch, tag or commit on the hub; ignored for a folder.

    Raises:
        UsageError: The data set, split or a column does not exist, or the hub cannot be reached.
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
    try:
        with hub.explained("data set", path, revision), hub.cut_off(offline):
            table = load_dataset(str(folder or path), split=split, **options)
    except DatasetNotFoundError as error:
        where = "nothing to read in this folder" if folder else "check the id, the revision and your access"
        raise UsageError(f"the data set '{path}' cannot be found: {where}") from error
    except (ValueError, FileNotFoundError, RuntimeError, DatasetsError) as error:
        why = str(error).split("\n")[0]
        raise UsageError(f"split '{split}' of the data set '{path}' cannot be read: {why}") from error
    _require_columns(columns, table.column_names, f"the data set '{path}'")
    return [dict(zip(columns, values, strict=True)) for values in zip(*(table[c] for c in columns), strict=True)]


def hub_commit(path: str, revision: str | None) -> str | None:
    """The commit that a revision of a data set resolves to; None for a folder or without a connection."""
    from huggingface_hub import HfApi

    if hub.local_folder(path) is not None or hub.offline():
        return None
    with hub.explained("data set", path, revision):
        return HfApi().dataset_info(path, revision=revision, timeout=10).sha


def file_rows(path: str, columns: Sequence[str]) -> list[Row]:
    """Rows of a CSV, TSV or JSONL file.

    Args:
        path: The file; its ending says the format (``.csv``, ``.tsv``, ``.jsonl``).
        columns: The columns to read.

    Raises:
        UsageError: The file is missing, empty, not UTF-8, of another format, or lacks a column.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl}
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"the data file '{path}' does not exist")
    if file.suffix.lower() not in readers:
        raise UsageError(f"the data file '{path}' has an unknown ending: give one of {', '.join(readers)}")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"line {line} of '{path}' is not UTF-8; save the file as UTF-8") from error
    rows = []
    for number, record in readers[file.suffix.lower()](file, text):
        where = f"line {number} of '{path}'"
        _require_columns(columns, record, where)
        rows.append({column: _as_text(record[column], f"{where}: '{column}'") for column in columns})
    if not rows:
        raise UsageError(f"the data file '{path}' has no rows")
    return rows


def _as_text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise UsageError(f"{where} is no text but {json.dumps(value)[:40]}")
    text = "" if value is None else str(value)
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


def _read_csv(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if repeated := [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]:
            raise UsageError(
                f"the first line of '{file}' names the column '{repeated[0]}' twice; give each its own name"
            )
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


def _read_jsonl(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"line {number} of '{file}' is not valid JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise UsageError(f'line {number} of \'{file}\' is not a JSON object such as {{"source": "..."}}')
        yield number, record


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


def _cached(path: str) -> bool:
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, name = path.split("/")
    return (Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])).is_dir()
