"""What became of the rows and columns of files: nothing is left out without a word."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from red_lightning.errors import UsageError
from red_lightning.tables import Quoting

BadRows = Literal["stop", "skip"]

SHOWN = 3
"""How many of the bad rows are named."""


class RowReport:
    """Counts what is left out of files, and stops at bad rows or leaves them out.

    Args:
        bad_rows: ``stop`` raises the error of the first bad row. ``skip`` leaves bad rows out and counts them.
        quoting: How quotes of CSV and TSV files are read.

    Attributes:
        rows: By file, how many rows are used.
        blank: By file, how many blank lines there are.
        bad: By file, the errors of the rows that are left out.
    """

    def __init__(self, bad_rows: BadRows = "stop", quoting: Quoting = "auto") -> None:
        self.bad_rows, self.quoting = bad_rows, quoting
        self.rows: Counter[str] = Counter()
        self.blank: Counter[str] = Counter()
        self.bad: dict[str, list[str]] = {}
        self._unused: dict[str, Counter[str]] = {}
        self._file = ""

    def begin(self, file: str) -> None:
        """Read a file, and forget what is known of it from an earlier time."""
        self._file = file
        for known in (self.rows, self.blank, self.bad, self._unused):
            known.pop(file, None)

    def leave_out(self, columns: Iterable[str]) -> None:
        """Count the columns of a row of the file that is read, or keys of its messages, that are not used."""
        self._unused.setdefault(self._file, Counter()).update(columns)

    @property
    def unused(self) -> Counter[str]:
        """How many rows have a value in each column that is not used."""
        return sum(self._unused.values(), Counter())

    def refuse(self, file: str, error: UsageError) -> None:
        """Stop at a bad row, or count it.

        Raises:
            UsageError: Bad rows stop the run.
        """
        if self.bad_rows == "stop":
            raise error
        self.bad.setdefault(file, []).append(str(error))

    @contextmanager
    def row(self, file: str) -> Iterator[None]:
        """Read one row of a file: a :class:`UsageError` that is raised meanwhile is the row's.

        Raises:
            UsageError: The row is bad, and bad rows stop the run.
        """
        try:
            yield
        except UsageError as error:
            self.refuse(file, error)
        else:
            self.rows[file] += 1

    @contextmanager
    def used_row(self, file: str) -> Iterator[None]:
        """Use one row that was read: a :class:`UsageError` that is raised meanwhile makes it a bad one.

        Raises:
            UsageError: The row is bad, and bad rows stop the run; or each row of the file is bad.
        """
        try:
            yield
        except UsageError as error:
            if str(error) in self.bad.get(file, []):  # another split has the row too
                return
            self.refuse(file, error)
            self.rows[file] -= 1
            self.finish(file)

    def finish(self, file: str) -> None:
        """Refuse a file of which every row is bad.

        Raises:
            UsageError: Names the first of them.
        """
        if not self.rows[file] and (bad := self.bad.get(file)):
            raise UsageError(f"all {len(bad):,} rows of '{file}' are bad; the first: {bad[0]}")

    @property
    def notes(self) -> list[str]:
        """One sentence for each kind of thing that is left out."""
        lines = []
        for file, bad in self.bad.items():
            named = "; ".join(bad[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
            lines.append(
                f"{len(bad):,} of {len(bad) + self.rows[file]:,} rows of '{file}' are bad and left out: {named}"
            )
        lines += [f"blank lines of '{file}' left out: {count:,}" for file, count in self.blank.items() if count]
        if self.unused:
            columns = ", ".join(f"{name} ({count:,} rows)" for name, count in sorted(self.unused.items()))
            lines.append(f"columns that are not used: {columns}")
        return lines

    def provenance(self) -> dict[str, Any]:
        """The counts, for results.json; empty if nothing is left out."""
        counts = {
            "bad_rows": {file: len(bad) for file, bad in self.bad.items()},
            "unused_columns": dict(self.unused),
        }
        return {name: value for name, value in counts.items() if value}
