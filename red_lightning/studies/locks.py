"""Lock files that name their owner, and are released when the owner is gone."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from red_lightning.atomic_files import write_whole

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
        _write(self.path, os.getpid(), pid)

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
        _write(path, os.getpid())
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
    here = content["host"] == socket.gethostname()
    alive = any(_lives(*process) for process in content["processes"]) if here else age < SILENCE
    return f"process {content['processes'][0][0]} on {content['host']}" if alive else None


def _write(path: Path, *pids: int) -> None:
    content = {"host": socket.gethostname(), "processes": [[pid, began(pid)] for pid in pids]}
    write_whole(path, json.dumps(content))


def began(pid: int) -> str | None:
    """When a process began, in the system's own ticks; None where it cannot be found out (no ``/proc``)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _lives(pid: int, then: str | None) -> bool:
    if began(pid) != then:  # another process has got its number since
        return False
    with suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:  # another user's
            return True
        return True
    return False
