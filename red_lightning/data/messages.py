"""Messages of a conversation: dictionaries with ``role`` (system, user or assistant) and ``content``."""

from itertools import takewhile
from typing import Any

from red_lightning.errors import UsageError, nearest

Message = dict[str, Any]
ROLES = ("system", "user", "assistant")


def require_conversation(messages: Any, where: str, may_ask: bool) -> None:
    """Refuse what is no conversation: perhaps a system message, then user and assistant in turn.

    Args:
        messages: What should be dictionaries with ``role`` and ``content``.
        where: What an error calls the row.
        may_ask: Whether the last message may be the user's.

    Raises:
        UsageError: Names the row and what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise UsageError(f'{where} has no list of messages such as [{{"role": "user", "content": "..."}}, ...]')
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UsageError(f"message {number} of {where} is not an object with 'role' and 'content'")
        if message["role"] not in ROLES:
            raise UsageError(
                f"message {number} of {where} has the unknown role '{message['role']}'; "
                f"{nearest(str(message['role']), ROLES)}"
            )
        if not isinstance(message["content"], str) or not message["content"].strip():
            what = {"assistant": "answer", "user": "prompt", "system": "system message"}[message["role"]]
            raise UsageError(f"message {number} of {where} is an empty {what}; fill it in or remove the row")
    roles = [message["role"] for message in messages]
    turns = roles[roles[0] == "system" :]
    if "assistant" not in turns and not may_ask:
        raise UsageError(f"{where} has no answer (assistant message) to learn; add it or remove the row")
    for number, role in enumerate(turns):
        if role != ("user", "assistant")[number % 2]:
            raise UsageError(
                f"message {number + 1 + len(roles) - len(turns)} of {where} is by the {role}, but user and assistant "
                "must take turns, the user first (only a system message may precede)"
            )
    if not turns:
        raise UsageError(f"{where} has no user message to answer; add it or remove the row")
    if turns[-1] == "user" and not may_ask:
        raise UsageError(f"{where} ends with a user message; add its answer or remove that message")


def is_learned(message: Message) -> bool:
    """Return whether an answer is learned: whether its ``weight`` (1 where there is none) is not 0."""
    return bool(message.get("weight", 1))


def asked(messages: list[Message]) -> list[Message]:
    """The messages up to the last one of the user."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def texts_of(messages: list[Message]) -> dict[str, Any]:
    """What the user asks last (``text``), and the known answers (``references``: one or none)."""
    question = asked(messages)
    return {"text": question[-1]["content"], "references": [m["content"] for m in messages[len(question) :]]}


def first_prompt(messages: list[Message]) -> tuple[str, ...]:
    """What is said before the first answer: conversations that share it are held out together."""
    return tuple(message["content"] for message in takewhile(lambda m: m["role"] != "assistant", messages))
