"""Read and write checkpoint files."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from red_lightning.errors import UsageError


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running anything that it contains.

    The archive has a checksum of each entry, which :func:`torch.load` does not compare: a flipped bit would load.

    Raises:
        UsageError: The file is missing, cut short, or not a checkpoint.
    """
    if not Path(path).is_file():
        raise UsageError(f"the checkpoint '{path}' does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            if (entry := archive.testzip()) is not None:
                raise zipfile.BadZipFile(entry)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, ...
        raise UsageError(f"the checkpoint '{path}' is damaged or not a checkpoint; resume from another one") from error
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        raise UsageError(f"the checkpoint '{path}' was not written by red_lightning")
    return content
