"""Append records to JSONL files that stay valid after a crash."""

import fcntl
import json
import os
from collections.abc import Mapping
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
        fields: What each record holds at least: the type by the field's name.

    Attributes:
        rows: The records, in the order of the file.

    Raises:
        UsageError: The file cannot be written, another process adds to it, or a line is no record.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path, self._fields = path, fields
        self._turn = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise cannot_write(f"'{path}'", error, "give another --output") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise UsageError(
                f"another process adds to '{path}'; wait until it ends, or give another --output"
            ) from error
        except OSError:  # a file system without locks
            pass
        try:
            self.rows = self._read()
        except UsageError:
            self.close()
            raise

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

    def clear(self) -> None:
        """Forget every record."""
        self._file.truncate(0)
        self.rows.clear()

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
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
                rows.append(self._record(line, number))
        return rows

    def _record(self, line: bytes, number: int) -> Record:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(n, ...), t) for n, t in self._fields.items()):
            raise UsageError(
                f"line {number} of '{self.path}' is damaged; remove that line, and what it held is made again"
            )
        return row
