"""Locks for the cells of a study, which the kernel frees when the last process that holds them ends.

``filelock`` takes them with ``flock``, on a descriptor of ours: a run inherits it, and holds the lock even after
``study run`` was killed. ``filelock.FileLock`` does not pass its descriptor to a child. ``SoftFileLock`` needs no
support of the file system, but a killed owner leaves its file behind, and no other node can tell that it is gone.
``flock`` works between nodes on NFS (unless mounted with ``nolock`` or ``local_lock``), on GPFS, and on Lustre mounted
with ``-o flock``; their servers free the locks of a node that crashed. Without support, the study is refused.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor, unlock_descriptor

from red_lightning.errors import UsageError


class HeldError(Exception):
    """Another process holds the lock; the message says which."""


@contextmanager
def lock(path: Path) -> Iterator[BinaryIO]:
    """Lock a file, which stays when the lock is freed: if it were removed, two processes could lock two files.

    Yields:
        The file. A child that inherits its descriptor keeps the lock if this process is killed or the block raises.

    Raises:
        HeldError: Another process, or another thread, holds the lock.
        UsageError: The file system has no locks.
    """
    with path.open("a+b") as file:
        if not _acquired(file):
            raise HeldError(_text(path) or "another process")
        sign(file, os.getpid())
        yield file
        file.truncate(0)
        unlock_descriptor(file.fileno())


def sign(file: BinaryIO, pid: int) -> None:
    """Write into a locked file which process of this machine holds it."""
    file.truncate(0)
    file.write(f"process {pid} on {socket.gethostname()}".encode())
    file.flush()
    os.fsync(file.fileno())  # other nodes of NFS see it only then


def owner_of(path: Path) -> str | None:
    """Return who holds a lock, such as "process 7 on host"; None if nobody does.

    Testing a lock takes it for an instant, so a file that names nobody is not tested. A user who may not write the file
    cannot test it, and gets the name in it.
    """
    name = _text(path)
    if not (name and os.access(path, os.W_OK)):
        return name or None
    with path.open("r+b") as file:  # closing it frees the lock
        return None if _acquired(file) else name


def _acquired(file: BinaryIO) -> bool:
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        raise UsageError(
            f"'{file.name}' cannot be locked: {error.strerror}. Choose a --folder on a file system with locks, or "
            "mount this one with them (Lustre: -o flock)."
        ) from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
