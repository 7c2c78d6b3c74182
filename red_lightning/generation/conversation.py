"""A conversation with a model."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

from red_lightning.data.messages import Message
from red_lightning.generation.prompts import Prompt
from red_lightning.generation.writer import Writer


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: The answer, or as much of it as there was when it was stopped.
        stopped: Whether Ctrl-C stopped it.
        forgotten: How many of the oldest exchanges no longer fit into the context, and were forgotten for it.
    """

    text: str
    stopped: bool
    forgotten: int


class Conversation:
    """Several turns with a model, which reads all of them as far as its context reaches.

    A model that continues texts instead of conversing reads each message alone.

    Args:
        writer: The model.
        system: A system message, which precedes everything and is never forgotten.
        edited: Let the edits answer; else the backbone without them.

    Attributes:
        exchanges: What was said: for each turn the user's message and the answer, or nothing if it was not answered.
    """

    def __init__(self, writer: Writer, system: str | None = None, edited: bool = True) -> None:
        self.writer, self.edited = writer, edited
        self.beginning: list[Message] = [{"role": "system", "content": system}] if system else []
        self.exchanges: list[list[Message]] = []

    @property
    def messages(self) -> list[Message]:
        """All messages, with the system's: dictionaries with ``role`` and ``content``."""
        return [*self.beginning, *chain.from_iterable(self.exchanges)]

    def reset(self) -> None:
        """Begin anew, with the system message."""
        self.exchanges = []

    def undo(self) -> bool:
        """Forget the last exchange; whether there was one."""
        return bool(self.exchanges and [self.exchanges.pop()])

    def ask(self, message: str, say: Callable[[str], None]) -> Reply:
        """Say something and take the answer; Ctrl-C stops it, and what was said until then is kept.

        Args:
            message: What the user says.
            say: Is called with each piece of the answer as it comes.

        Raises:
            UsageError: The message alone is too long for the context; the conversation is then as it was.
        """
        pieces: list[str] = []

        def heard(piece: str) -> None:
            pieces.append(piece)
            say(piece)

        question: Message = {"role": "user", "content": message}
        prompt, forgotten = self._prompt(question)
        stopped = False
        with nullcontext() if self.edited else self.writer.unedited():
            try:
                self.writer.stream(prompt, heard, "your message")
            except KeyboardInterrupt:
                stopped = True
        text = "".join(pieces).strip()
        answered: list[Message] = [question, {"role": "assistant", "content": text}]
        self.exchanges = [*self.exchanges[forgotten:], answered if text else []]  # an empty answer is no turn
        return Reply(text, stopped, forgotten)

    def _prompt(self, question: Message) -> tuple[Prompt, int]:
        """What the model reads, and how many of the oldest exchanges do not fit beside a quarter of the context."""
        prompts = self.writer.prompts
        if not prompts.converses:
            return question["content"], 0
        for forgotten in range(len(self.exchanges) + 1):
            prompt = [*self.beginning, *chain.from_iterable(self.exchanges[forgotten:]), question]
            if prompts.positions is None:
                break
            room = min(self.writer.decoding.max_new_tokens, prompts.positions // 4)
            if len(prompts.whole([prompt], ["your message"])[0]) + room <= prompts.positions:
                break
        return prompt, forgotten
