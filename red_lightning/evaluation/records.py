"""Files to which one record at a time is added, whole whatever happens: JSONL."""

import fcntl
import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from red_lightning.errors import UsageError, cannot_write

Record = dict[str, Any]


class Records:
    """The records of a JSONL file, which this process alone may add to while it lives.

    A record is on the disk when :meth:`append` returns. What a kill left of a last line is dropped, so that only that
    record must be made again.

    Args:
        path: The file; it and its folder are made if they are missing.

    Attributes:
        rows: The records, in the order of the file.

    Raises:
        UsageError: The file cannot be written, another process adds to it, or a line is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise cannot_write(f"'{path}'", error, "give another --output") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process adds to '{path}'; wait until it ends, or give another --output"
            ) from error
        except OSError:  # a file system without locks
            pass
        self.rows = self._read()

    def append(self, row: Record) -> None:
        """Add a record; any thread may.

        Raises:
            UsageError: It cannot be written.
        """
        with self._turn:
            try:
                self._file.write(json.dumps(row).encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise cannot_write(f"'{self.path}'", error, "make room and run it again to go on") from error
            self.rows.append(row)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: object) -> None:
        """Let others add to the file."""
        self._file.close()

    def _read(self) -> list[Record]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        rows = []
        for number, line in enumerate(content[:whole].split(b"\n"), start=1):
            if line:
                rows.append(_record(line, f"line {number} of '{self.path}'"))
        return rows


def _record(line: bytes, where: str) -> Record:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{where} is damaged; remove that line, and what it held is made again")
    return row
