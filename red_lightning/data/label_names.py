"""Names of classes: spellings that look alike, and values that YAML reads as numbers or booleans."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from red_lightning.errors import UsageError

Label = str | bool | int | float
"""A class as YAML reads it: ``no`` is false, and ``0`` a number."""

BOOLEANS = {False: ("no", "false", "off", "n"), True: ("yes", "true", "on", "y")}
"""What YAML 1.1 reads as a boolean, in lower case."""
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?")
"""A number without zeros before it: ``007`` is a code."""
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


def spelled(value: Label, names: Sequence[str], option: str) -> str:
    """Return the class that a value of YAML means.

    Args:
        value: It.
        names: The classes, as the data spell them.
        option: What an error calls the option.

    Raises:
        UsageError: A boolean means none of the classes, or several.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        found = [name for name in names if name.lower() in BOOLEANS[value]]
        if len(found) != 1:
            word, other = BOOLEANS[value][:2]
            raise UsageError(
                f"{option} has {word} or {other} without quotes, which YAML reads as a boolean, and the classes are "
                f'{", ".join(names) or "not known"}. Quote it, such as "{word}"'
            )
        return found[0]
    return next((name for name in names if _number(name) == value), str(value))


def merge_alike(labels: Iterable[str], known: Sequence[str] = ()) -> dict[str, str]:
    """Return the one spelling of each label among those that are equal to a person.

    Labels are equal that differ in Unicode's composition (NFC and NFD), in invisible characters, or in how they write a
    number (``1`` and ``1.0``). Of equal ones the known is taken, or the shortest.

    Args:
        labels: The labels of a file.
        known: The classes, if they are known.
    """
    chosen: dict[object, str] = {}
    for label in [*known, *sorted({*labels}, key=lambda label: (len(label), label))]:
        chosen.setdefault(_meaning(label), label)
    return {label: chosen[_meaning(label)] for label in labels}


def _meaning(label: str) -> object:
    text = unicodedata.normalize("NFC", label.translate(INVISIBLE)).strip()
    return float(text) if NUMBER.fullmatch(text) else text


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number else None
