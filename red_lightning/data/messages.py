"""Messages of a conversation: dictionaries with ``role`` and ``content``, and perhaps keys that chat templates read.

An answer with the ``weight`` 0 is read but not learned.
"""

from typing import Any

from red_lightning.errors import UsageError, nearest

Message = dict[str, Any]
Conversation = dict[str, Any]
"""A dictionary with ``messages`` and perhaps ``tools``, those that the assistant may call."""
ROLES = ("system", "user", "assistant", "tool")


def require_conversation(messages: Any, where: str, may_ask: bool) -> None:
    """Refuse what is no conversation.

    A system message comes first, results of tools follow a call of tools, and the last message is an answer, unless
    ``may_ask``. Whether the assistant may begin, or one side may speak twice, is left to the template.

    Args:
        messages: What should be dictionaries with ``role`` and ``content``.
        where: What an error calls the row.
        may_ask: Whether the last message may be the user's or a tool's.

    Raises:
        UsageError: Names the row and what is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise UsageError(f'{where} has no list of messages such as [{{"role": "user", "content": "..."}}, ...]')
    before: Message = {}
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UsageError(f"message {number} of {where} is not an object with 'role' and 'content'")
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise UsageError(f"message {number} of {where} has the unknown role '{role}'; {nearest(str(role), ROLES)}")
        calls = role == "tool" or (role == "assistant" and bool(message.get("tool_calls")))
        blank = calls or role == "system"  # an empty system message replaces the one that some templates write
        if not (calls and content is None) and (not isinstance(content, str) or (not content.strip() and not blank)):
            what = {"assistant": "answer", "user": "prompt", "system": "system message"}.get(role, "result")
            raise UsageError(f"message {number} of {where} is an empty {what}; fill it in or remove the row")
        if role == "system" and before:
            raise UsageError(f"message {number} of {where} is by the system, but only the first message may be")
        if role == "tool" and before.get("role") not in ("assistant", "tool"):  # calls may be written as text
            raise UsageError(f"message {number} of {where} is the result of a tool, but no call of a tool precedes it")
        before = message
    roles = [message["role"] for message in messages]
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers and not may_ask:
        raise UsageError(f"{where} has no answer (assistant message) to learn; add it or remove the row")
    if "user" not in roles:
        raise UsageError(f"{where} has no user message to answer; add it or remove the row")
    if may_ask:
        return
    if roles[-1] != "assistant":
        ending = {"user": "a user message", "tool": "the result of a tool"}[roles[-1]]
        raise UsageError(f"{where} ends with {ending}; add its answer or remove that message")
    if not any(map(is_learned, answers)):
        raise UsageError(f"{where} has no answer to learn, as each has the weight 0; remove the row")


def is_learned(message: Message) -> bool:
    """Return whether an answer is learned: whether its ``weight`` (1 where there is none) is not 0."""
    return bool(message.get("weight", 1))


def asked(messages: list[Message]) -> list[Message]:
    """Return the messages up to the last one that is not the assistant's."""
    last = max(number for number, message in enumerate(messages, start=1) if message["role"] != "assistant")
    return messages[:last]


def texts_of(messages: list[Message]) -> dict[str, Any]:
    """Return what is asked last (``text``), and the known answers (``references``: one or none)."""
    question = asked(messages)
    answer = [str(message["content"] or "") for message in messages[len(question) :]]
    return {"text": str(question[-1]["content"] or ""), "references": ["\n\n".join(answer)] if answer else []}


def first_prompt(messages: list[Message]) -> tuple[str, ...]:
    """Return what is said before the first answer to the user: conversations that share it are held out together."""
    roles = [message["role"] for message in messages]
    first = roles.index("user")
    answered = next((n for n in range(first, len(roles)) if roles[n] == "assistant"), len(roles))
    return tuple(str(message["content"] or "") for message in messages[:answered])


def parted(prompt: str | list[Message] | Conversation) -> tuple[list[Message], list[Any] | None]:
    """Return the messages of a text or conversation, and the tools that the assistant may call."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}], None
    return (prompt["messages"], prompt.get("tools")) if isinstance(prompt, dict) else (prompt, None)
