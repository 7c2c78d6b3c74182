"""Find what a chat template leaves out of a conversation."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from red_lightning.data.messages import Message
from red_lightning.errors import UsageError

Tools = Sequence[Any] | None
Apply = Callable[[Sequence[Message], str, Tools], str]
OTHER = "choose the template paper (--data.template paper where a model is trained, else --template paper)"
"""What to do where a tokenizer's chat template will not do."""
FOLDING = (
    "give --data.fold_system true where a model is trained, else --template_settings.fold_system true, to put it "
    "before the first user message"
)
MARKER = "\N{REPLACEMENT CHARACTER}"
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""The keys under which templates look for what was thought before an answer."""


def require_written(
    apply: Apply, shown: list[Message], text: str, where: str, tools: Tools, left_out: Counter[str]
) -> None:
    """Refuse a conversation of which a chat template leaves something out.

    Args:
        apply: Returns what the template makes of messages.
        shown: The messages.
        text: What it made of these.
        where: What an error calls the conversation.
        tools: The tools that the assistant may call.
        left_out: Counts what is left out by design: thoughts of earlier turns, and links of the results of tools.

    Raises:
        UsageError: Names the message and what is left out.
    """
    asked = max((n for n, message in enumerate(shown) if message["role"] == "user"), default=-1)
    if tools and apply(shown, where, None) == text:
        raise UsageError(f"the tokenizer's chat template leaves out the tools of {where}. Remove them; or {OTHER}")
    for number, message in enumerate(shown):
        said = f"the tokenizer's chat template leaves out the {{}} of message {number + 1} of {where}"
        earlier = number < asked
        if not _has_content(apply, shown, number, text, where, tools, left_out if earlier else None):
            way = FOLDING if message["role"] == "system" else OTHER
            raise UsageError(f"{said.format('content')}, which is by the {message['role']}; {way}")
        for key in [key for key, value in message.items() if key not in ("role", "content", "weight") and value]:
            calls = message[key] if key == "tool_calls" else [message[key]]
            without = {name: value for name, value in message.items() if name != key}
            fewer = [[*calls[:n], *calls[n + 1 :]] for n in range(len(calls))]
            changed = [{**without, key: some} if some else without for some in fewer]
            if all(changes(apply, shown, number, other, text, where, tools) for other in changed):
                continue
            link = key in ("name", "tool_call_id") and message["role"] == "tool"
            if not link and not (key in THOUGHTS and earlier):
                raise UsageError(
                    f"{said.format(repr(key))}. Leave it out (--data.ignore '[{key}]', generate: --ignore), or choose "
                    "another template"
                )
            left_out[key] += 1


def _has_content(
    apply: Apply, shown: list[Message], number: int, text: str, where: str, tools: Tools, left_out: Counter[str] | None
) -> bool:
    """Return whether the content of a message is in the text, or its thoughts are left out by design and counted."""
    message = shown[number]
    content = message["content"] or ""
    if message["role"] == "assistant" and "</think>" in content:
        thoughts, _, content = content.rpartition("</think>")
        other = {**message, "content": f"<think>{MARKER}</think>{content}"}
        said = thoughts.rpartition("<think>")[2].strip()
        if said and not changes(apply, shown, number, other, text, where, tools):
            if left_out is None:
                return False
            left_out["<think>"] += 1
    if content.strip() not in text and json.dumps(content, ensure_ascii=False)[1:-1] not in text:
        return False  # Llama 3 writes the results of tools as JSON
    if not content.strip() or (message["role"] in ("user", "assistant") and not message.get("tool_calls")):
        return True
    return changes(apply, shown, number, {**message, "content": MARKER}, text, where, tools)


def changes(
    apply: Apply, shown: list[Message], number: int, other: Message, text: str, where: str, tools: Tools
) -> bool:
    """Return whether another message in place of one changes the text, or is refused."""
    try:
        return apply([*shown[:number], other, *shown[number + 1 :]], where, tools) != text
    except UsageError:
        return True
