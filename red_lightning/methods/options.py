"""The options of a method: the arguments of its class, recorded in adapters."""

import inspect
import json
from typing import Any

from red_lightning.errors import UsageError

KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def options_of(klass: type) -> set[str]:
    """Return the named arguments of a class, including those that ``**options`` passes to its bases."""
    names: set[str] = set()
    for init in (vars(each).get("__init__") for each in klass.__mro__[:-1]):
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind in KINDS} - {"self"}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def defaults_of(klass: type) -> dict[str, Any]:
    """Return the options of a class that have a default, with it."""
    found: dict[str, Any] = {}
    for init in (vars(each).get("__init__") for each in reversed(klass.__mro__[:-1])):
        parameters = inspect.signature(init).parameters if init else {}
        found |= {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    taken = options_of(klass)
    return {name: value for name, value in found.items() if name in taken}


def require_kept(method: Any, options: dict[str, Any]) -> None:
    """Refuse, before training, a method that its adapter could not restore.

    Args:
        method: The method.
        options: The options that it keeps, without its name.

    Raises:
        UsageError: It does not keep an option, or keeps one that JSON cannot hold.
    """
    name = type(method).__name__
    for option in sorted(options_of(type(method))):
        if option not in options:
            raise UsageError(
                f"the method {name} takes '{option}' but does not keep it, so its adapter could not be loaded again; "
                f"let __init__ set self.{option} = {option}"
            )
    for option, value in options.items():
        try:
            same = json.loads(json.dumps(value)) == (list(value) if isinstance(value, tuple) else value)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise UsageError(
                f"the method {name} keeps '{option}' as a {type(value).__name__}, which the JSON of its adapter cannot "
                "hold; keep a number, a text, a list or an object of these"
            )
