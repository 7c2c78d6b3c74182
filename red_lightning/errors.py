"""Errors for users: one sentence that names the wrong thing and the way out."""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

SHOWN = 40
"""How many known names a sentence lists."""


FULL = re.compile("out of memory|can't allocate memory|not enough memory")
"""What torch says where there is no more memory."""


class UsageError(Exception):
    """Bad input. The message is one sentence for the user; the command line prints it without a traceback."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None if nothing is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant.

    Args:
        name: The name that was given.
        known: The names that exist.

    Returns:
        A clause such as ``did you mean 'ffn'? known: attention, ffn`` (without the question if nothing is near).
    """
    names = sorted(known)
    close = closest(name, names)
    shown = [*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])]
    return (f"did you mean '{close}'? " if close else "") + f"known: {', '.join(shown)}"


def cannot_write(what: str, error: OSError | None, way: str) -> UsageError:
    """The complaint about a file or folder that cannot be written.

    Args:
        what: It, in words.
        error: Why; None if another process knows.
        way: What to do about it.
    """
    reason = (error.strerror or error) if error else "another process could not write it"
    return UsageError(f"{what} cannot be written: {reason}; {way}")


def require_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number outside its range.

    Raises:
        UsageError: Names the option, the number and the range.
    """
    if not least <= value <= most:
        limits = f"be at least {least:g}" if most == math.inf else f"lie between {least:g} and {most:g}"
        raise UsageError(f"{name} is {value}, but must {limits}")


@contextmanager
def enough_memory(doing: str, way: str) -> Iterator[None]:
    """Say in one sentence that the memory is full, a GPU's or the machine's.

    Args:
        doing: What it is needed for, after ``while``.
        way: What to do about it.

    Raises:
        UsageError: In place of torch's exceptions.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not FULL.search(str(error)):
            raise
        raise UsageError(f"the memory is full while {doing}; {way}") from error


def usage_error_in(error: BaseException) -> UsageError | None:
    """The bad input that an exception was caused by, if it was."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UsageError):
        cause = cause.__cause__
    return cause


def first_line(error: BaseException) -> str:
    """What another library's error says, without what it says besides."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: str) -> str:
    """Return a text without what could steer a terminal, or is no character (bytes that were no UTF-8)."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else "\ufffd" for char in text
    )
