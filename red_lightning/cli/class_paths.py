"""The classes that a config names by ``class_path``: imported before the parser does, so that complaints say why."""

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from red_lightning.adapters.extensions import import_class
from red_lightning.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """What a key of a config takes.

    Attributes:
        word: It, in a word.
        base: The import path of the class that it extends.
        short: The modules whose classes need no import path.
    """

    word: str
    base: str
    short: tuple[str, ...] = ()


KINDS = {
    "model": Kind("task", "red_lightning.tasks.BackboneTask", ("red_lightning.tasks",)),
    "data": Kind("data module", "lightning.LightningDataModule", ("red_lightning.data", "red_lightning.quickstart")),
    "model.method": Kind("method", "red_lightning.methods.Method", ("red_lightning.methods",)),
    "trainer.strategy": Kind("strategy", "lightning.pytorch.strategies.Strategy"),
    "trainer.logger": Kind("logger", "lightning.pytorch.loggers.Logger"),
    "trainer.callbacks": Kind("callback", "lightning.Callback"),
}
"""The settings that take classes, by full name. Other classes are the parser's own matter."""


def require_class(value: Any, key: str, place: str) -> None:
    """Refuse a value that names a class which cannot be imported, or one of another kind.

    Args:
        value: A class's name or import path, or settings with a ``class_path``; anything else is not looked at.
        key: The full name of the setting that it is given for.
        place: What names it, for complaints: a key and its file, or an option.

    Raises:
        UsageError: Says what is wrong with it, and what exists.
    """
    kind = KINDS.get(key)
    path = value.get("class_path") if isinstance(value, dict) else value
    if kind is None or not isinstance(path, str):
        return
    if "." in path and all(part.isidentifier() for part in path.split(".")):
        import_class(path, _named(kind.base), kind.word, place, functions=True)
    elif other := _another(path, key):
        raise UsageError(f"{place} takes a {kind.word}, but '{path}' is a {other}")


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _another(name: str, key: str) -> str | None:
    """The kind of the package's class of a short name, if it is not that of the key."""
    for other, kind in KINDS.items():
        for module in kind.short:
            klass = getattr(import_module(module), name, None)
            if other != key and inspect.isclass(klass) and issubclass(klass, _named(kind.base)):
                return kind.word
    return None
