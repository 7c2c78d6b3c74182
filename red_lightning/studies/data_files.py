"""Know the data files of a cell by their content."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from red_lightning.atomic_files import digest_of


def data_files(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each data file of an experiment, by its name.

    Args:
        experiment: The whole experiment, resolved.
    """
    given = (experiment.get("data") or {}).get("init_args") or {}
    named = [value for key, value in given.items() if key.endswith("file") and isinstance(value, str)]
    paths = {name: Path(name).expanduser() for name in named}
    found = {name: (path, path.stat()) for name, path in paths.items() if path.is_file()}
    return {name: _digest_of(path, state.st_size, state.st_mtime_ns) for name, (path, state) in found.items()}


@cache
def _digest_of(path: Path, size: int, modified: int) -> str:
    """Return the digest of a file in one of its states; the many cells that share it read it once."""
    return digest_of(path)
