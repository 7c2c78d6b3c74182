"""Instructions and answers from JSONL, JSON, Parquet, CSV or TSV files."""

from typing import Any

from red_lightning.data.conversations import ConversationsDataModule
from red_lightning.data.held_out import ChangedRows, HeldOut
from red_lightning.data.hub_rows import Row
from red_lightning.data.layouts import RowReader
from red_lightning.data.local_files import ending_of, file_records, standing_in
from red_lightning.data.messages import first_prompt
from red_lightning.data.row_data_module import Split
from red_lightning.data.row_reports import BadRows, RowReport
from red_lightning.errors import UsageError
from red_lightning.tables import Quoting


class Instructions(ConversationsDataModule):
    """Conversations from files (``.jsonl``, ``.json``, ``.parquet``, ``.csv`` or ``.tsv``; UTF-8).

    The columns of a row decide its layout: ``messages``, a list of objects with ``role`` and ``content``;
    ``conversations``, a list of objects with ``from`` (system, human, gpt, ...) and ``value``; or ``prompt``,
    ``instruction`` or ``question`` with ``response``, ``completion``, ``output`` or ``answer`` (texts or lists of
    messages), and perhaps ``input`` or ``context``, and ``history``. ``system`` (or ``system_prompt``) and ``tools``
    belong to each layout. Messages may have ``tool_calls``, ``reasoning_content`` and other keys that chat templates
    read, and answers ``weight`` 0 or ``train`` false, which are read but not learned. Other columns are refused, but
    for metadata (``id``, ``source``, ``category``, ...), which is reported.

    Args:
        train_file: Training rows. Required by fit.
        validation_file: Validation rows. null holds out ``validation_size`` of the training rows.
        test_file: Test rows. null tests on the validation rows.
        predict_file: Prompts to answer, in the same layouts (answers may be missing), or ``.txt`` with one prompt per
            line. null answers the test prompts.
        columns: The file's names of columns, by the names above: ``{prompt: question, response: best_answer}``.
        ignore: Columns, and keys of messages, that are left out.
        bad_rows: ``stop`` at the first bad row, or ``skip`` bad rows, which are counted and named.
        quoting: Quotes in CSV and TSV files: ``none`` reads them as text (GLUE's own style), ``quoted`` fields may be
            quoted, ``auto`` is ``quoted`` but refuses a quoted field over lines that are rows by themselves.
        changed_rows: A training file that has changed since the checkpoint was trained: ``refuse`` it, or ``keep`` its
            held-out rows held out.
        **options: Those of :class:`ConversationsDataModule`.
    """

    def __init__(
        self,
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        predict_file: str | None = None,
        columns: dict[str, str] | None = None,
        ignore: list[str] | None = None,
        bad_rows: BadRows = "stop",
        quoting: Quoting = "auto",
        changed_rows: ChangedRows = "refuse",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.columns, self.ignore, self.report = columns, ignore, RowReport(bad_rows, quoting)
        self.held_out = HeldOut(changed_rows)
        self._parts: dict[str, list[Row]] = {}
        self.files = {"train": train_file, "validation": validation_file, "test": test_file, "predict": predict_file}
        self._read: dict[str, list[Row]] = {}

    def read(self, split: Split) -> list[Row]:
        """Read a split from its file, or from the split that stands in for it."""
        source = standing_in(split, self.files)
        file = self.files[source]
        if file is not None and source != "train":
            return self._conversations(file, may_ask=source == "predict")
        if source in ("train", "validation") and self.files["train"] is not None:
            return self._divided(self.files["train"])[source]
        raise UsageError(f"there are no {source} rows: give --data.{source}_file")

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed, the size and the rows of the training file, if rows are held out of it."""
        if self.files["validation"] is not None or self.files["train"] is None:
            return {}
        rows = len(self._conversations(self.files["train"]))
        return {"seed": self.seed, "validation_size": self.validation_size, "rows": rows}

    def provenance(self) -> dict[str, Any]:
        """The files and columns."""
        layout = {name: value for name, value in (("columns", self.columns), ("ignore", self.ignore)) if value}
        files = {"files": self.files, "held_out_by": self.held_out_by}
        return {**super().provenance(), **files, **layout}

    def _divided(self, file: str) -> dict[str, list[Row]]:
        """The rows of the training file by split."""
        if not self._parts:
            rows, whole = self._conversations(file), self.files["validation"] is not None
            self._parts = self.held_out.divide(
                rows,
                lambda: {"train": rows} if whole else self.divide(rows, {"validation": self.validation_size}),
                lambda row: first_prompt(row["messages"]),
                self.trained_content,
                file,
            )
        return self._parts

    def _conversations(self, file: str, may_ask: bool = False) -> list[Row]:
        """The rows of a file, which is read once."""
        if (known := f"{may_ask} {file}") not in self._read:
            self._read[known] = conversations(file, may_ask, self.columns, self.ignore, self.report)
        return self._read[known]


def conversations(
    file: str,
    may_ask: bool = False,
    columns: dict[str, str] | None = None,
    ignore: list[str] | None = None,
    report: RowReport | None = None,
) -> list[Row]:
    """Return the conversations of a file.

    Args:
        file: The file.
        may_ask: Whether answers may be missing.
        columns: The file's names of columns, by ours.
        ignore: Columns, and keys of messages, that are left out.
        report: Counts what is left out; None stops at the first bad row.

    Returns:
        For each row its ``messages`` and ``tools``, its number ``row`` from 0, its ``file``, and ``where`` it is.

    Raises:
        UsageError: The file cannot be read, its layout is unknown, or a row is no conversation.
    """
    report = report or RowReport()
    reader = RowReader(report, columns, ignore, may_ask)
    rows: list[Row] = []
    lines = ["prompt"] if ending_of(file) == ".txt" else None
    for where, record in file_records(file, lines, report):
        with report.row(file):
            rows.append({**reader.read(record, where), **record.identity, "where": where, "file": file})
    report.finish(file)
    return rows
