"""The argument and output that hold the keys and values already computed, under both of their names.

transformers called them ``past_key_values`` up to 5.23. It calls them ``cache`` from 5.24, and accepts the old argument
with a warning until 5.40. A model's own code, loaded with ``trust_remote_code``, may use either name on any release.
"""

import inspect
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import nn

NAMES = ("cache", "past_key_values")
"""The names, the newest first."""


def cache_argument(module: nn.Module) -> str | None:
    """Return the name of the argument of ``module.forward`` that takes a cache; None if it takes none."""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in NAMES if name in parameters), None)


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """Return the cache among a forward call's arguments by name, or the fields of its output; None if there is none."""
    return next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)


def rename_cache(module: nn.Module, arguments: MutableMapping[str, Any]) -> None:
    """Pass a cache under the name that ``module.forward`` takes.

    Args:
        module: The module that is called.
        arguments: Its arguments by name; changed in place.
    """
    if not any(name in arguments for name in NAMES):  # as in most passes of a training
        return
    own = cache_argument(module)
    for name in NAMES:
        if own is not None and name != own and name in arguments:
            given = arguments.pop(name)
            if arguments.get(own) is None:
                arguments[own] = given
