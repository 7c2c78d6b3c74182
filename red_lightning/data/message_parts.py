"""Parts of a message in the forms that data sets use."""

import json
from collections.abc import Mapping
from typing import Any

from red_lightning.data.local_files import as_text
from red_lightning.errors import UsageError

WEIGHTS = ("weight", "train")


def weight_of(said: Mapping[str, Any], where: str) -> int | None:
    """Return whether a message should be learned: its ``weight`` (OpenAI), or ``train`` (axolotl)."""
    for key in WEIGHTS:
        if key in said:
            if said[key] not in (0, 1):
                raise UsageError(f"{where} has the {key} {said[key]!r:.40}, but it must be 0 or 1 (false or true)")
            return int(said[key])
    return None


def content_of(content: Any, where: str) -> str:
    """Return a content as text: a text, or a list of parts that are texts."""
    if not isinstance(content, list):
        return as_text(content, where)
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text" or not isinstance(part, dict | str) or (isinstance(part, dict) and "text" not in part):
            raise UsageError(f"{where} has a part of the type '{kind}', but only texts are read")
    return "".join(as_text(part if isinstance(part, str) else part["text"], where) for part in content)


def parsed_of(value: Any, where: str) -> Any:
    """Return a call of a tool, parsed if it is written as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is a call of a tool, but not valid JSON: {error}") from error


def call_of(call: Any, where: str) -> dict[str, Any]:
    """Return a call of a tool in OpenAI's form."""
    if not isinstance(call, dict) or not {"name", "arguments"} <= call.keys():
        raise UsageError(f"{where} is a call of a tool without 'name' and 'arguments'")
    return {"type": "function", "function": {"name": call["name"], "arguments": parsed_of(call["arguments"], where)}}
