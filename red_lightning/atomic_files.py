"""Write files and folders atomically: they are complete or absent."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from red_lightning.errors import UsageError, cannot_write


def write_whole(path: Path, content: str | bytes) -> None:
    """Write under another name, flush, rename: a crash or a full disk leaves what was there before.

    Args:
        path: The file.
        content: What it holds; text is written as UTF-8.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, which may be larger than the memory, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_new(path: Path, what: str) -> None:
    """Refuse a folder that holds something, and the working folder, whose place another could not take.

    Raises:
        UsageError: It does, or is it, or it is a file.
    """
    path = path.expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"'{path}' holds something already; give a new or empty folder for {what}")
    if path.resolve() == Path.cwd():
        raise UsageError(f"'{path}' is the working folder; give another for {what}, such as one inside it")


@contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """Write a folder under another name, and give it its own when it is complete.

    Args:
        path: The folder; it must not exist or be empty.
        what: What it will hold, in words.

    Yields:
        The folder to write into, beside the other. What a killed process left there is removed first.

    Raises:
        UsageError: The folder holds something already, or cannot be written.
    """
    require_new(path, what)
    path = path.expanduser().absolute()
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            with suppress(PermissionError):  # of a file system without modes
                file.chmod(part.stat().st_mode & 0o666)  # safetensors' are else for their owner alone
            with file.open("rb") as written:
                os.fsync(written.fileno())
        part.rename(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, None)  # safetensors' have no number
        way = "free some space, or give another folder" if full else "give another folder"
        raise cannot_write(f"{what} in '{path}'", error, way) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
