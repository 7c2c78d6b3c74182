"""Base of the prompt templates: conversations as text and tokens, with the tokens of answers marked."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from red_lightning.data.control_tokens import ControlTokens
from red_lightning.data.messages import Message
from red_lightning.errors import UsageError


@dataclass(frozen=True)
class TemplateSettings:
    """How a template writes conversations.

    Attributes:
        chat_template: A chat template (Jinja) in place of the tokenizer's own.
        template_options: Arguments of the chat template, such as ``enable_thinking`` of Qwen 3.
        fold_system: Put a system message before the text of the first user message.
        split_special_tokens: Read control tokens that a message spells, such as ``</s>``, as text.
    """

    chat_template: str | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    fold_system: bool = False
    split_special_tokens: bool = True

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, by name."""
        plain = TemplateSettings()
        return {name: value for name, value in asdict(self).items() if value != getattr(plain, name)}

    @classmethod
    def recorded(cls, data: Mapping[str, Any]) -> "TemplateSettings":
        """Return the settings that the ``data`` of an adapter's record holds; defaults where an older one has none."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


def known_settings(trained: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template and its settings: those of a checkpoint, which the user's may not contradict.

    Args:
        trained: What a checkpoint says; empty without one, or if it is of version 0.1.0.
        given: What the user gives, by name.

    Raises:
        UsageError: The user gives another value than the checkpoint has.
    """
    names = ("template", *TemplateSettings.__dataclass_fields__)
    if "template" not in trained:
        return dict(given)
    known = {"template": trained["template"], **asdict(TemplateSettings.recorded(trained))}
    for name in names:
        if name in given and given[name] != known[name]:
            raise UsageError(
                f"data.{name} is {given[name]!r:.60}, but the checkpoint was trained with {known[name]!r:.60}. "
                "Leave it out"
            )
    return known


class Answer(NamedTuple):
    """An answer in a conversation.

    Attributes:
        start: Where it begins, in characters or tokens.
        end: Where it ends, with the control token that ends it.
        learned: Whether it is learned (its message's ``weight`` is not 0).
        message: The index of its message.
    """

    start: int
    end: int
    learned: bool
    message: int


def learned_spans(answers: Sequence[Answer], length: int, everything: bool) -> list[tuple[int, int]]:
    """Return where the labels of a conversation are, in tokens.

    Args:
        answers: Its answers.
        length: Its number of tokens.
        everything: Whether all but the first token and the answers that are not learned are labels.
    """
    if not everything:
        return [(answer.start, answer.end) for answer in answers if answer.learned]
    bounds = [1, *(edge for answer in answers if not answer.learned for edge in (answer.start, answer.end)), length]
    return [(start, end) for start, end in zip(bounds[::2], bounds[1::2], strict=True) if start < end]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: All of it. If the last message is not the assistant's, it ends where the answer would begin.
        answers: The answers, in characters.
        apart: Whether control tokens are marks in the text (see ``ControlTokens``).
    """

    text: str
    answers: list[Answer]
    apart: bool


class Template(ABC):
    """Base of the templates.

    Args:
        tokenizer: A Hugging Face tokenizer.
        settings: How conversations are written.

    Attributes:
        prefix: The tokens before each text.
        stop_ids: The tokens of which each ends an answer when it is generated; the first is what the template writes.
        left_out: Which keys of how many messages were left out, by design of a chat template.
    """

    prefix: list[int]
    stop_ids: list[int]

    def __init__(self, tokenizer: Any, settings: TemplateSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.control = ControlTokens(tokenizer)
        self.left_out: Counter[str] = Counter()

    @abstractmethod
    def write(self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None) -> tuple[str, list[Answer]]:
        """Return the text of a conversation and its answers, in characters."""

    def render(self, messages: Sequence[Message], where: str, tools: Sequence[Any] | None = None) -> Rendered:
        """Return the text of a conversation.

        Args:
            messages: Dictionaries with ``role`` and ``content``, and perhaps other keys that a chat template reads.
            where: What an error calls the row.
            tools: The tools that the assistant may call, for the chat template.

        Raises:
            UsageError: The template cannot render it.
        """
        apart = self.settings.split_special_tokens and self.control.spelled_in([*messages, tools])
        if apart:
            messages, tools = self.control.hide([*messages], where), self.control.hide(tools, where)
        text, answers = self.write(messages, where, tools)
        if not apart:
            return Rendered(text, answers, False)
        change = self.control.exchange
        moved = [a._replace(start=len(change(text[: a.start])), end=len(change(text[: a.end]))) for a in answers]
        return Rendered(change(text), moved, True)

    def tokenize(self, rendered: Sequence[Rendered]) -> list[tuple[list[int], list[Answer]]]:
        """Return the tokens of some conversations.

        The tokens of an answer always continue those of its prompt exactly as the prompt is tokenized alone, because
        that is what the model is given when it generates. The text is tokenized up to the beginning of each answer in
        turn, and then whole, each time from its own beginning: what precedes a piece decides how its first token looks
        (SentencePiece puts a space before a text that stands alone). Where a token reaches across a beginning (a
        newline of the prompt and one of the answer may be one token), the piece behind it is tokenized alone.

        Args:
            rendered: Results of :meth:`render`.

        Returns:
            For each conversation its tokens, :attr:`prefix` included, and its answers, in tokens.

        Raises:
            UsageError: The tokenizer does not write the token that ends an answer.
        """
        bounds = [[*(answer.start for answer in one.answers), len(one.text)] for one in rendered]
        tokens: list[list[int]] = [[] for _ in rendered]
        starts: list[list[int]] = [[] for _ in rendered]
        for depth in range(max(map(len, bounds), default=0)):
            for apart in (False, True):
                rows = [n for n, known in enumerate(bounds) if depth < len(known) and rendered[n].apart is apart]
                wholes = self.control.encode([rendered[row].text[: bounds[row][depth]] for row in rows], apart)
                for row, whole in zip(rows, wholes, strict=True):
                    known = tokens[row]
                    if whole[: len(known)] != known:
                        piece = rendered[row].text[bounds[row][depth - 1] : bounds[row][depth]]
                        whole = known + self.control.encode([piece], apart)[0]
                    tokens[row] = whole
                    starts[row].append(len(whole))
        return [
            (
                self.prefix + known,
                [self._placed(one, answer, known, start) for answer, start in zip(one.answers, begun, strict=False)],
            )
            for one, known, begun in zip(rendered, tokens, starts, strict=True)
        ]

    def _placed(self, one: Rendered, answer: Answer, tokens: list[int], start: int) -> Answer:
        """Return an answer in tokens: its end is found by how often its text has the token that ends it."""
        text = one.text[answer.start : answer.end]
        ending = max((t for t in self.control.ids if text.endswith(self._spelling(t, one.apart))), key=len)
        stop, end = self.control.ids[ending], start
        try:
            for _ in range(text.count(self._spelling(ending, one.apart))):
                end = tokens.index(stop, end) + 1
        except ValueError:
            raise UsageError(
                f"the tokenizer does not read {ending}, which ends an answer, as one token. Set it as a special token "
                "in its tokenizer_config.json"
            ) from None
        return answer._replace(start=len(self.prefix) + start, end=len(self.prefix) + end)

    def _spelling(self, token: str, apart: bool) -> str:
        return self.control.mark(token) if apart else token
