"""What a user reads when something they gave is wrong: one sentence that names it and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """Bad input. The message is one sentence for the user; the command line prints it without a traceback."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant.

    Args:
        name: The name that was given.
        known: The names that exist.

    Returns:
        A clause such as ``did you mean 'ffn'? Known: attention, ffn`` (without the question if nothing is near).
    """
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    question = f"did you mean '{lowered[close[0]]}'? " if close else ""
    return f"{question}Known: {', '.join(names)}"
