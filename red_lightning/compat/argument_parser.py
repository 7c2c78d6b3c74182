"""What jsonargparse says is wrong, and where.

jsonargparse (4.53) raises ``ValueError``, ``TypeError`` and ``argparse.ArgumentError`` whose only content is English:
no attribute holds the option, the value or the type. Its wordings are read here and nowhere else. One that is not
known loses nothing: the text itself is shown.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

WORDINGS = {
    "class": re.compile(r"[\s\S]*Expected a dot import path string: (\S+)"),
    "option of a class": re.compile(r"class_path '([^']+)':\s+(?:Option '|unrecognized arguments: --)([\w.]+)"),
    "value": re.compile(r"Expected (?:a|an) (.+?)\. Got value: (.*)"),
    "other class": re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)"),
    "union": re.compile(r"Subtypes: \[(.+)\]\s+Errors:(?:(?!Subtypes:)[\s\S])*?Given value: (?!NestedArg)(.*)"),
    "option": re.compile(r"^unrecognized arguments: ([^\s=]+)"),
    "required": re.compile(r"^the following arguments are required: (.+)"),
    "reference": re.compile(r"Interpolation key '([^']+)' not found"),
}
"""Kind -> wording, the most telling first; the groups are what :class:`Complaint` names as ``found``."""

PLACED = ("class", "option of a class", "value", "other class", "union")
"""The kinds that say nothing without the place."""

MISSING = re.compile(r"class_path '(?:\w+\.)*(\w+)':\s+(?:Requirement '([^']+)' not met|Neither `(\w+)`)")
"""How jsonargparse passes on that a class of Lightning lacks its package."""

STRATEGY = re.compile(r"^ *- (the strategy \w+ needs a package: .+)$", re.MULTILINE)
"""How it passes on our own complaint about a strategy, of whose exception it keeps the text alone."""

LONGEST = 2000
"""Characters of a text that is shown as it is."""


class Complaint(NamedTuple):
    """What a text says.

    Attributes:
        kind: A key of :data:`WORDINGS`; ``other`` for a wording that is not known.
        keys: The keys of the option, from the outermost class in; empty if the text names none.
        found: What the wording names: the class or option that is wrong, the type and the value.
        text: The text itself, on one line; of nested texts the innermost.
    """

    kind: str
    keys: list[str]
    found: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        """The option, as on the command line."""
        return ".".join(self.keys)


def read(message: str, error: BaseException | None = None) -> Complaint:
    """Read a message of jsonargparse.

    Args:
        message: The message.
        error: The exception that it was made of, whose causes have the innermost text.
    """
    keys = [key.removeprefix("fit.") for key in re.findall(r'Parser key "([^"]+)"', message)]
    text = " ".join(([*_texts(error), message] if error else [message])[0].split())
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ... ({len(text) - LONGEST:,} characters more)"
    for kind, wording in WORDINGS.items():
        if (found := wording.search(message)) and (keys or kind not in PLACED):
            return Complaint(kind, keys, found.groups(), text)
    return Complaint("other", keys, (), text)


def missing_package(error: BaseException) -> tuple[str, str] | None:
    """Return the class of Lightning that lacks a package and the package, if that is why a command line failed."""
    found = MISSING.search(str(error))
    return (found[1], found[2] or found[3]) if found else None


def strategy_without_package(error: BaseException) -> str | None:
    """Return our own complaint about a strategy that lacks its package, if that is why a command line failed."""
    found = STRATEGY.search(str(error))
    return found[1] if found else None


def _texts(error: BaseException) -> Iterator[str]:
    """The texts of an exception's causes, the innermost first; those that are empty left out."""
    if error.__cause__ is not None:
        yield from _texts(error.__cause__)
    if text := str(error).strip():
        yield text
