"""Instructions and answers from JSONL, JSON, Parquet, CSV or TSV files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from red_lightning.data.conversations import ConversationsDataModule
from red_lightning.data.hub_rows import Row, require_columns
from red_lightning.data.local_files import as_text, file_records, standing_in
from red_lightning.data.messages import Message, require_conversation
from red_lightning.data.row_data_module import Split
from red_lightning.errors import UsageError


class Instructions(ConversationsDataModule):
    """Conversations from files (``.jsonl``, ``.json``, ``.parquet``, ``.csv`` or ``.tsv``; UTF-8).

    The columns of the first row decide the layout: ``messages``, a list of objects with ``role`` and ``content``;
    ``conversations``, a list of objects with ``from`` (system, human or gpt) and ``value``; ``prompt`` and
    ``response``; or ``instruction``, an optional ``input``, and ``output``.

    Args:
        train_file: Training rows. Required by fit.
        validation_file: Validation rows. null holds out ``validation_size`` of the training rows.
        test_file: Test rows. null tests on the validation rows.
        predict_file: Prompts to answer, in the same layouts (answers may be missing), or ``.txt`` with one prompt per
            line. null answers the test prompts.
        **options: Those of :class:`ConversationsDataModule`.
    """

    def __init__(
        self,
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        predict_file: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = {"train": train_file, "validation": validation_file, "test": test_file, "predict": predict_file}
        self._read: dict[str, list[Row]] = {}

    def read(self, split: Split) -> list[Row]:
        """Read a split from its file, or from the split that stands in for it."""
        source = standing_in(split, self.files)
        file = self.files[source]
        if source == "train" and file is not None and self.files["validation"] is None:
            return self._held_out(file)["train"]
        if file is not None:
            return conversations(file, may_ask=source == "predict")
        if source == "validation" and self.files["train"] is not None:
            return self._held_out(self.files["train"])["validation"]
        raise UsageError(f"there are no {source} rows: give --data.{source}_file")

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed, the size and the rows of the training file, if rows are held out of it."""
        if self.files["validation"] is not None or self.files["train"] is None:
            return {}
        rows = len(self._conversations(self.files["train"]))
        return {"seed": self.seed, "validation_size": self.validation_size, "rows": rows}

    def provenance(self) -> dict[str, Any]:
        """The files."""
        return {**super().provenance(), "files": self.files, "held_out_by": self.held_out_by}

    def _held_out(self, file: str) -> dict[str, list[Row]]:
        return self.divide(self._conversations(file), {"validation": self.validation_size})

    def _conversations(self, file: str) -> list[Row]:
        """The rows of the training file, which is read once."""
        if file not in self._read:
            self._read[file] = conversations(file)
        return self._read[file]


def conversations(file: str, may_ask: bool = False) -> list[Row]:
    """The conversations of a file.

    Args:
        file: The file.
        may_ask: Whether answers may be missing.

    Returns:
        For each row its ``messages``, its number ``row`` from 0, and ``where`` it is.

    Raises:
        UsageError: The file cannot be read, its layout is unknown, or a row is no conversation.
    """
    columns = ["prompt"] if Path(file).suffix.lower() == ".txt" else None
    rows: list[Row] = []
    layout: tuple[str, ...] | None = None
    for number, (where, record) in enumerate(file_records(file, columns)):
        layout = layout or _layout(record, where, may_ask)
        try:
            require_columns(layout, record, where)
        except UsageError as error:
            raise UsageError(f"{error}; the first row, which says the layout, has {' and '.join(layout)}") from error
        messages = LAYOUTS[layout[0]](record, where)
        require_conversation(messages, where, may_ask)
        rows.append({"messages": messages, "row": number, "where": where})
    return rows


def _layout(record: dict[str, Any], where: str, may_ask: bool) -> tuple[str, ...]:
    """The columns that a row of this layout needs."""
    for prompt, answer in ANSWERS.items():
        needed = (prompt,) if may_ask or answer is None else (prompt, answer)
        if {*needed} <= record.keys():
            return needed
    known = ", or ".join(prompt if answer is None else f"{prompt} and {answer}" for prompt, answer in ANSWERS.items())
    raise UsageError(f"{where} has the columns {', '.join(record)}, which are no layout that is known: give {known}")


def _messages(record: dict[str, Any], where: str) -> Any:
    return _translated(record["messages"], "role", "content", {}, where)


def _share_gpt(record: dict[str, Any], where: str) -> Any:
    return _translated(record["conversations"], "from", "value", {"human": "user", "gpt": "assistant"}, where)


def _pair(record: dict[str, Any], where: str) -> list[Message]:
    return _turn(
        as_text(record["prompt"], f"{where}: 'prompt'"), as_text(record.get("response"), f"{where}: 'response'")
    )


def _alpaca(record: dict[str, Any], where: str) -> list[Message]:
    texts = [as_text(record.get(column), f"{where}: '{column}'") for column in ("instruction", "input")]
    prompt = "\n\n".join(text for text in texts if text.strip())
    return _turn(prompt, as_text(record.get("output"), f"{where}: 'output'"))


def _turn(prompt: str, answer: str) -> list[Message]:
    messages = [{"role": "user", "content": prompt}]
    return [*messages, {"role": "assistant", "content": answer}] if answer.strip() else messages


def _translated(messages: Any, role: str, content: str, roles: dict[str, str], where: str) -> Any:
    """The messages with our names of keys and roles; what is no list of messages as it is, to be refused."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) and {role, content} <= m.keys() for m in messages):
        return messages
    return [
        {
            "role": roles.get(str(message[role]), str(message[role])),
            "content": as_text(message[content], f"message {number} of {where}"),
        }
        for number, message in enumerate(messages, start=1)
    ]


ANSWERS = {"messages": None, "conversations": None, "prompt": "response", "instruction": "output"}
"""The columns of the prompt and the answer in each layout; None where they share one."""
LAYOUTS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "messages": _messages,
    "conversations": _share_gpt,
    "prompt": _pair,
    "instruction": _alpaca,
}
"""What makes a conversation of a row of each layout, by its first column."""
