"""Read prompts from files, and write texts as JSONL."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from red_lightning.atomic_files import write_whole
from red_lightning.data.hub_rows import require_columns
from red_lightning.data.instructions import conversations
from red_lightning.data.layouts import COLUMNS
from red_lightning.data.local_files import as_text, ending_of, file_records, is_empty
from red_lightning.data.messages import asked, parted
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError, cannot_write
from red_lightning.generation.prompts import Prompt
from red_lightning.jsonl import Records


@dataclass(frozen=True)
class Question:
    """A prompt and where it is from.

    Attributes:
        prompt: A text, or a conversation of more than one message.
        where: What an error calls it.
        id: What the column ``id`` of its row says; None if there is none.
    """

    prompt: Prompt
    where: str
    id: Any = None

    @property
    def text(self) -> str:
        """The text, or what the user says last."""
        return str(parted(self.prompt)[0][-1]["content"])

    def after(self, system: str) -> "Question":
        """Return the prompt after a system message.

        Raises:
            UsageError: It has one.
        """
        messages, tools = parted(self.prompt)
        if messages[0]["role"] == "system":
            raise UsageError(f"{self.where} has a system message, but --system gives another. Leave one of them out")
        messages = [{"role": "system", "content": system}, *messages]
        return Question({"messages": messages, "tools": tools} if tools else messages, self.where, self.id)


def read_prompts(
    file: str,
    converses: bool,
    columns: Sequence[str],
    trained: Mapping[str, Any] | None = None,
    report: RowReport | None = None,
) -> list[Question]:
    """The prompts of a file.

    Args:
        file: ``.txt`` with one prompt per line, ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet``.
        converses: Read conversations in the layouts of :class:`~red_lightning.data.Instructions`, answers ignored;
            else texts of one column.
        columns: The columns that may hold the texts, the first one first.
        trained: The ``columns`` and ``ignore`` of the training, for conversations.
        report: Counts what is left out.

    Raises:
        UsageError: The file cannot be read, or a row is no prompt.
    """
    report = report or RowReport()
    if converses:
        known = {name: (trained or {}).get(name) for name in ("columns", "ignore")}
        named = {ours: name for ours, name in (known["columns"] or {}).items() if ours in COLUMNS}
        rows = conversations(file, True, named, known["ignore"], report)
        report.leave_out("known answers" for row in rows if row["messages"][-1]["role"] == "assistant")
        return [_question(row) for row in rows]
    found = []
    column = ""
    for where, record in file_records(file, [columns[0]] if ending_of(file) == ".txt" else None, report):
        column = column or next((name for name in columns if name in record), columns[0])
        require_columns([column], record, where)
        text = as_text(record[column], f"{where}: '{column}'")
        if not text.strip():
            raise UsageError(f"{where} has an empty '{column}'; fill it in or remove the row")
        report.leave_out(name for name, value in record.items() if name not in (column, "id") and not is_empty(value))
        found.append(Question(text, where, record.id))
    return found


def _question(row: Mapping[str, Any]) -> Question:
    messages, tools = asked(row["messages"]), row["tools"]
    alone = len(messages) == 1 and not tools and messages[0].keys() == {"role", "content"}
    prompt = {"messages": messages, "tools": tools} if tools else messages
    return Question(messages[0]["content"] if alone else prompt, row["where"], row.get("id"))


class OutputFile:
    """A JSONL file that appears when it is whole; until then its rows are in ``FILE.part``, from which it goes on.

    A row is on the disk when :meth:`add` returns, and no other process writes the file meanwhile.

    Args:
        path: The file.
        settings: What decides the contents, as plain values: a part that was written with others is refused.
        overwrite: Replace what is there.

    Attributes:
        rows: The rows that are written already, by ``row``.

    Raises:
        UsageError: The file exists, its part was written with other settings, another process writes it, or it cannot
            be written.
    """

    def __init__(self, path: Path, settings: Any, overwrite: bool = False) -> None:
        refuse_existing(path, overwrite)
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        self._records = Records(self.part, {})
        first = {"settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()}
        if overwrite and self._records.rows[:1] != [first]:
            self._records.clear()
        if not self._records.rows:
            self._records.append(first)
        if self._records.rows[0] != first:
            self._records.close()
            raise UsageError(
                f"'{self.part}' was begun with another model, other prompts or another decoding; remove it, or give "
                "--overwrite true"
            )
        self.rows = {row["row"]: row for row in self._records.rows[1:] if isinstance(row.get("row"), int)}

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write some rows, each with its number ``row``."""
        for row in rows:
            self._records.append(dict(row))
            self.rows[row["row"]] = dict(row)

    def finish(self, content: str | None = None) -> None:
        """Write the file: a text that was made of the rows, or else the rows in their order."""
        try:
            lines = "".join(f"{_line(row)}\n" for _, row in sorted(self.rows.items()))
            write_whole(self.path, lines if content is None else content)
            self.part.unlink()
            self._records.close()
        except OSError as error:
            raise cannot_write(f"'{self.path}'", error, "put that right; the same command goes on") from error

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(self, *error: object) -> None:
        """Let others write the file."""
        self._records.close()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, unless it may be overwritten, and one without a folder.

    Raises:
        UsageError: Names it and the way out.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; give --output the name of a file")
    if path.exists() and not overwrite:
        raise UsageError(f"'{path}' exists already; give another --output, or --overwrite true")
    if not path.parent.is_dir():
        raise UsageError(f"the folder '{path.parent}' of --output does not exist; create it first")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
