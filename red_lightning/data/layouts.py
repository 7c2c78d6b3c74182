"""Layouts of instructions: how the columns of a row become a conversation."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from red_lightning.data.local_files import as_text, is_empty
from red_lightning.data.message_parts import WEIGHTS, calls_of, content_of, weight_of
from red_lightning.data.messages import Message, require_conversation
from red_lightning.data.row_reports import RowReport
from red_lightning.errors import UsageError, nearest

LISTS = ("messages", "conversations")
"""Columns with a whole conversation: OpenAI's and ShareGPT's."""
PROMPTS = ("prompt", "instruction", "question")
ANSWERS = ("response", "completion", "output", "answer")
INPUTS = ("input", "context")
"""Columns with what an instruction is about: Alpaca's and Dolly's."""
SYSTEMS = ("system", "system_prompt")
COLUMNS = (*LISTS, *PROMPTS, *INPUTS, *ANSWERS, *SYSTEMS, "history", "tools")
METADATA = (
    *("category", "dataset", "id", "idx", "index", "lang", "language", "license", "prompt_id", "row", "source"),
    *("split", "timestamp", "url", "uuid"),
)
"""Columns, and keys of messages, that describe a row and are not part of what is said: reported, not refused."""
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
    **dict.fromkeys(("system", "developer"), "system"),
}
"""Our name of each role."""
PASSED = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking")
"""Keys of a message that chat templates read, besides ``tool_calls``."""
CALLS = ("tool_calls", "function_call")
WAYS = "give --data.columns '{prompt: NAME, response: NAME}' to name the columns of prompts and answers"
IGNORE = "--data.ignore '[{}]' (generate: --ignore)"
"""The option that leaves something out."""


Take = Callable[[Sequence[str]], tuple[str, Any]]


class RowReader:
    """Makes conversations of rows.

    Every value of a row is used, or refused by name; only metadata and what ``ignore`` names is left out, and counted.

    Args:
        report: Counts the columns that are not used.
        columns: The row's name of each of our columns (:data:`COLUMNS`) that has another name there.
        ignore: Columns of rows, and keys of messages, to leave out.
        may_ask: Whether answers may be missing.

    Raises:
        UsageError: ``columns`` names a column that no layout has.
    """

    def __init__(
        self, report: RowReport, columns: Mapping[str, str] | None, ignore: Iterable[str] | None, may_ask: bool
    ) -> None:
        self.report, self.columns, self.ignore, self.may_ask = report, columns or {}, {*(ignore or ())}, may_ask
        for ours in self.columns:
            if ours not in COLUMNS:
                raise UsageError(f"data.columns has the key '{ours}', which no layout has; {nearest(ours, COLUMNS)}")

    def read(self, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the ``messages`` of a row and the ``tools`` that it may call (None if there are none).

        Args:
            record: The values of the row, by column.
            where: What an error calls it.

        Raises:
            UsageError: The row is no conversation, or a value would not be used.
        """
        self._unused: list[str] = []
        named = self._named(record, where)
        said = {name: value for name, value in named.items() if not is_empty(value)}
        taken: set[str] = set()

        def take(names: Sequence[str]) -> tuple[str, Any]:
            """Return the one of some columns that has a value, and its value."""
            found = [name for name in names if name in said]
            if len(found) > 1:
                way = IGNORE.format(found[1])
                raise UsageError(f"{where} has both '{found[0]}' and '{found[1]}'. Leave one out, with {way}")
            taken.update(found)
            return (found[0], said[found[0]]) if found else ("", None)

        if {*LISTS} & {*said} or ({*LISTS} & {*named} and not {*PROMPTS} & {*said}):
            messages = self._messages(take(LISTS)[1], where)
            if _is_first_prompt(said.get("prompt"), messages):
                taken.add("prompt")  # which repeats what the messages say
        else:
            messages = self._turns(take, named, where)
        system = take(SYSTEMS)[1]
        if system is not None:
            if messages and messages[0]["role"] == "system":
                raise UsageError(f"{where} has a system message and a column with another. Leave one of them out")
            messages = [{"role": "system", "content": as_text(system, f"{where}: the system message")}, *messages]
        tools = self._tools(take(["tools"])[1], where)
        self._account([column for column in said if column not in taken], f"{where} has the column")
        require_conversation(messages, where, self.may_ask)
        self.report.leave_out(self._unused)
        return {"messages": messages, "tools": tools}

    def _named(self, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the values by our names, without the columns to ignore."""
        theirs = {name: ours for ours, name in self.columns.items()}
        for name, ours in theirs.items():
            if name not in record and ours in (*PROMPTS, *LISTS, *ANSWERS) and not self.may_ask:
                raise UsageError(f"{where} has no column '{name}': {nearest(name, [*map(str, record)])}")
        if None in record:
            raise UsageError(f"{where} has more fields than the first line")
        renamed: dict[str, Any] = {}
        for name, value in record.items():
            ours = theirs.get(name, name)
            if name in self.ignore:
                continue
            if ours in renamed:
                raise UsageError(
                    f"{where} has the column '{ours}' beside '{self.columns[ours]}', which data.columns gives this "
                    f"name. Leave it out, with {IGNORE.format(ours)}"
                )
            renamed[ours] = value
        return renamed

    def _turns(self, take: Take, named: Mapping[str, Any], where: str) -> list[Message]:
        """Return the messages of a row with a column for the prompt and one for the answer."""
        name, prompt = take(PROMPTS)
        answer_name, answer = take(ANSWERS)
        if not name and not {*PROMPTS} & {*named}:
            known = f"messages, conversations, or one of {', '.join(PROMPTS)} and one of {', '.join(ANSWERS)}"
            near = nearest(next(iter(named), ""), COLUMNS)
            raise UsageError(
                f"{where} has the columns {', '.join(named)}, which are no layout that is known "
                f"({known}); {near if near.startswith('did') else WAYS}"
            )
        if not answer_name and not self.may_ask:
            raise UsageError(f"{where} has no answer: fill in one of {', '.join(ANSWERS)}, or {WAYS}")
        if isinstance(prompt, list):
            # as TRL has it: a list of messages as a prompt is read, not learned
            messages = [{"weight": 0, **m} if m["role"] == "assistant" else m for m in self._messages(prompt, where)]
        else:
            texts = [as_text(prompt, f"{where}: '{name}'")]
            for column in INPUTS:
                texts.append(as_text(take([column])[1], f"{where}: '{column}'"))
            messages = [{"role": "user", "content": "\n\n".join(text for text in texts if text.strip())}]
        messages = [*self._history(take(["history"])[1], where), *messages]
        if isinstance(answer, list):
            return [*messages, *self._messages(answer, where)]
        text = as_text(answer, f"{where}: '{answer_name}'")
        return [*messages, {"role": "assistant", "content": text}] if text.strip() else messages

    def _history(self, history: Any, where: str) -> list[Message]:
        """Return the turns before a prompt: Alpaca's list of pairs."""
        if history is None:
            return []
        if not isinstance(history, list) or not all(
            isinstance(turn, list | tuple) and len(turn) == 2 for turn in history
        ):
            raise UsageError(f'{where}: \'history\' is no list of pairs such as [["a prompt", "its answer"]]')
        texts = [as_text(text, f"{where}: 'history'") for turn in history for text in turn]
        return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]

    def _tools(self, tools: Any, where: str) -> list[Any] | None:
        """Return the tools, which may be written as JSON."""
        if isinstance(tools, str):
            try:
                tools = json.loads(tools)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UsageError(f"{where}: 'tools' is not valid JSON: {error}") from error
        if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
            raise UsageError(f"{where}: 'tools' is no list of objects")
        return tools or None

    def _messages(self, messages: Any, where: str) -> list[Message]:
        """Return messages with our keys and roles."""
        if not isinstance(messages, list):
            raise UsageError(f'{where} has no list of messages such as [{{"role": "user", "content": "..."}}, ...]')
        return [self._message(message, f"message {n} of {where}") for n, message in enumerate(messages, start=1)]

    def _message(self, message: Any, where: str) -> Message:
        role, content = ("from", "value") if isinstance(message, dict) and "from" in message else ("role", "content")
        if (
            not isinstance(message, dict)
            or role not in message
            or (content not in message and not any(message.get(key) for key in CALLS))
        ):
            raise UsageError(f"{where} is not an object with 'role' and 'content', or 'from' and 'value'")
        said = {k: v for k, v in message.items() if k not in self.ignore and not is_empty(v)}
        name, text = str(message[role]), message.get(content)
        calls = {key: said[key] for key in CALLS if key in said}
        if name == "function_call" and not is_empty(text):
            calls, text = {**calls, role: text}, ""
        if len(calls) > 1:
            raise UsageError(f"{where} has calls of tools in both {' and '.join(map(repr, calls))}. Leave one out")
        read: Message = {"role": ROLES.get(name, name), "content": content_of(text, where)}
        if calls:
            read["tool_calls"] = calls_of(next(iter(calls.values())), where)
        read.update({key: said[key] for key in PASSED if key in said})
        weight = weight_of(said, where)
        if weight is not None and read["role"] != "assistant" and weight:
            raise UsageError(f"{where} is by the {read['role']} and should be learned, but only answers are")
        if weight is not None:
            read["weight"] = weight
        self._account([k for k in said if k not in (role, content, *PASSED, *WEIGHTS, *CALLS)], f"{where} has the key")
        return read

    def _account(self, names: Sequence[str], where: str) -> None:
        """Count what is metadata, and refuse what else is not used."""
        others = [name for name in names if name not in METADATA]
        if others:
            raise UsageError(
                f"{where} '{others[0]}', which is not used. Leave it out with {IGNORE.format(', '.join(others))}, or "
                f"{WAYS}"
            )
        self._unused += names


def _is_first_prompt(prompt: Any, messages: list[Message]) -> bool:
    """Return whether a text is the first message of the user."""
    said = [message["content"] for message in messages if message["role"] == "user"][:1]
    return isinstance(prompt, str) and [prompt.strip()] == [text.strip() for text in said]
