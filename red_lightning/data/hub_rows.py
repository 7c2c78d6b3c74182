"""Read rows from the hub, or from a local folder with the same layout."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from red_lightning import hub
from red_lightning.errors import UsageError, nearest

Row = dict[str, Any]


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
    table = hub_table(path, split, revision, name)
    require_columns(columns, table.column_names, f"the data set '{path}'")
    values = [_with_names(table[column][:], table.features[column]) for column in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def hub_table(path: str, split: str | None, revision: str | None = None, name: str | None = None) -> Any:
    """A split of a data set on the hub or in a local folder laid out like a hub repository, as datasets reads it.

    Args:
        path: Hub id or folder.
        split: Name of the split; None for a dictionary of all of them.
        revision: Branch, tag or commit on the hub; ignored for a folder.
        name: Configuration of the data set, if it has several.

    Raises:
        UsageError: The data set, configuration or split does not exist, or the hub cannot be reached.
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
            return load_dataset(str(folder or path), name, split=split, **options)
    except DatasetNotFoundError as error:
        where = "nothing to read in this folder" if folder else "check the id, the revision and your access"
        raise UsageError(f"the data set '{path}' cannot be found: {where}") from error
    except (ValueError, FileNotFoundError, RuntimeError, DatasetsError) as error:
        raise UsageError(_unreadable(path, split, name, str(error))) from error


def _unreadable(path: str, split: str | None, name: str | None, why: str) -> str:
    # datasets tells which configurations there are in its message only
    if found := re.search(r"available configs: \[(.*)\]|BuilderConfig .* not found. Available: \[(.*)\]", why):
        known = re.findall(r"'([^']*)'", found[1] or found[2])
        if name is None:
            return f"the data set '{path}' has several configurations; name one of {', '.join(known)}"
        return f"the data set '{path}' has no configuration '{name}': {nearest(name, known)}"
    of = f"the configuration '{name}' of " if name is not None else ""
    part = f"split '{split}' of " if split is not None else ""
    return f"{part}{of}the data set '{path}' cannot be read: " + why.split("\n")[0]


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


def require_text(rows: Sequence[Row], where: str) -> None:
    """Refuse empty texts.

    Raises:
        UsageError: Names the first row (counted from 1) and column that is empty.
    """
    for number, row in enumerate(rows, start=1):
        for column, text in row.items():
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"row {number} of {where} has an empty '{column}'; fill it in or remove the row")


def require_columns(wanted: Sequence[str], present: Any, where: str) -> None:
    """Refuse a table that lacks a column.

    Raises:
        UsageError: Names the first one that is missing, and the nearest that is there.
    """
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
