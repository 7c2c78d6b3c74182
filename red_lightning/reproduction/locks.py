"""One process at a time: a lock file that says whose it is, and is recognised when its owner is gone."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SILENCE = 600.0
"""Seconds after which the lock of another machine counts as left behind; its owner renews it far more often."""


class HeldError(Exception):
    """Another process holds the lock; the message says which."""


class Lock:
    """A lock that is held.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def name_child(self, pid: int) -> None:
        """Hold the lock as long as a child process lives, too: it may outlive its parent."""
        _write(self.path, pid)

    def renew(self) -> None:
        """Show other machines that the owner lives."""
        os.utime(self.path)


@contextmanager
def lock(path: Path) -> Iterator[Lock]:
    """Hold a lock.

    Args:
        path: Its file, in a folder that exists.

    Raises:
        HeldError: A living process holds it.
    """
    with path.with_name(".lock").open("w") as door:  # one at a time may recognise and remove what was left behind
        fcntl.flock(door, fcntl.LOCK_EX)
        if (owner := owner_of(path)) is not None:
            raise HeldError(owner)
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        _write(path)
    try:
        yield Lock(path)
    finally:
        path.unlink(missing_ok=True)


def owner_of(path: Path) -> str | None:
    """Who holds a lock, in words; None if nobody does, or nobody alive."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    except ValueError:  # its owner died while it wrote
        return None
    alive = any(map(_lives, _pids(content))) if content["host"] == socket.gethostname() else age < SILENCE
    return f"process {content['pid']} on {content['host']}" if alive else None


def _write(path: Path, child: int | None = None) -> None:
    content = {"host": socket.gethostname(), "pid": os.getpid(), "child": child}
    path.write_text(json.dumps(content), encoding="utf-8")


def _pids(content: dict[str, Any]) -> list[int]:
    return [content[key] for key in ("pid", "child") if content.get(key)]


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:  # another user's
            return True
        return True
    return False
