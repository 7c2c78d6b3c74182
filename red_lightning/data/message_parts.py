"""Parts of a message in the forms that data sets use."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from red_lightning.data.local_files import as_text, is_empty
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
        if isinstance(part, dict):
            _refuse_others(part, ("type", "text"), f"{where} has a part with the key")
    return "".join(as_text(part if isinstance(part, str) else part["text"], where) for part in content)


def calls_of(calls: Any, where: str) -> list[dict[str, Any]]:
    """Return calls of tools in OpenAI's form: one or a list, each perhaps without ``type``, perhaps written as JSON.

    The arguments become an object, as chat templates expect it (transformers, "Tool use"): they would write a text
    with its quotes escaped.
    """
    calls = _parsed(calls, where)
    return [_call_of(call, where) for call in (calls if isinstance(calls, list) else [calls])]


def _call_of(call: Any, where: str) -> dict[str, Any]:
    whole = call if isinstance(call, dict) and "function" in call else {"type": "function", "function": call}
    function = whole["function"]
    if not isinstance(function, dict) or not {"name", "arguments"} <= function.keys():
        raise UsageError(f"{where} is a call of a tool without 'name' and 'arguments'")
    _refuse_others(whole, ("function", "id", "index", "type"), f"{where} has a call of a tool with the key")
    _refuse_others(function, ("name", "arguments"), f"{where} has a call of a tool with the key")
    arguments = {} if function["arguments"] == "" else _parsed(function["arguments"], where)
    return {**whole, "function": {**function, "arguments": arguments}}


def _parsed(value: Any, where: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is a call of a tool, but not valid JSON: {error}") from error


def _refuse_others(value: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse keys that would not be used."""
    if others := [key for key in value if key not in known and not is_empty(value[key])]:
        raise UsageError(f"{where} '{others[0]}', which is not used. Remove it")
