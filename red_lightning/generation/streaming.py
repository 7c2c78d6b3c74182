"""Stream a text while it is generated."""

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer


class Stream(BaseStreamer):
    """Hands the pieces of one text on as soon as they cannot change any more; together they are the text.

    Blanks at the end wait for what follows them (the text ends without), and so do the bytes of a character that is not
    complete.

    Args:
        text: The text of some new tokens, given whether these are all.
        say: Is called with each piece.
    """

    def __init__(self, text: Callable[[list[int], bool], str], say: Callable[[str], None]) -> None:
        self.text, self.say = text, say
        self.tokens: list[int] | None = None
        self.said = ""

    def put(self, value: Any) -> None:
        """Take the prompt, which comes first, or the next tokens: int64, one row."""
        if self.tokens is None:
            self.tokens = []
            return
        self.tokens += value.flatten().tolist()
        text = self.text(self.tokens, False)
        if not text.endswith("\ufffd"):
            self._say(text)

    def end(self) -> None:
        """Hand the rest on."""
        self._say(self.text(self.tokens or [], True))

    def _say(self, text: str) -> None:
        piece = text[len(self.said) :]
        if piece and text.startswith(self.said):
            self.said = text
            self.say(piece)
