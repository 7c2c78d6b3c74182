"""Prompt templates: conversations as text and tokens, with the tokens of answers marked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from red_lightning.data.messages import Message
from red_lightning.errors import UsageError

TemplateName = Literal["paper", "chat"]

OTHER = "choose the template paper (--data.template paper where a model is trained, else --template paper)"
"""What to do where a tokenizer's chat template will not do."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: All of it. If the last message is the user's, it ends where the answer would begin.
        answers: Where each answer begins in it.
    """

    text: str
    answers: list[int]


class Template(ABC):
    """Base of the templates.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        prefix: The tokens before each text.
        stop_ids: The tokens of which each ends an answer when it is generated; the first is what the template writes.
    """

    tokenizer: Any
    prefix: list[int]
    stop_ids: list[int]

    @abstractmethod
    def render(self, messages: Sequence[Message], where: str) -> Rendered:
        """The text of a conversation.

        Args:
            messages: Dictionaries with ``role`` and ``content``.
            where: What an error calls the row.

        Raises:
            UsageError: The template cannot render it.
        """

    def tokenize(self, rendered: Sequence[Rendered]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The tokens of some conversations.

        The tokens of an answer always continue those of its prompt exactly as the prompt is tokenized alone, because
        that is what the model is given when it generates. The text is tokenized up to the beginning of each answer in
        turn, and then whole, each time from its own beginning: what precedes a piece decides how its first token looks
        (SentencePiece puts a space before a text that stands alone). Where a token reaches across a beginning (a
        newline of the prompt and one of the answer may be one token), the piece behind it is tokenized alone.

        Args:
            rendered: Results of :meth:`render`.

        Returns:
            For each conversation its tokens, :attr:`prefix` included, and the token spans (start, end) of its answers,
            each with the token that ends it.
        """
        bounds = [[*one.answers, len(one.text)] for one in rendered]
        tokens: list[list[int]] = [[] for _ in rendered]
        starts: list[list[int]] = [[] for _ in rendered]
        for depth in range(max(map(len, bounds), default=0)):
            rows = [row for row, known in enumerate(bounds) if depth < len(known)]
            wholes = self._encode([rendered[row].text[: bounds[row][depth]] for row in rows])
            for row, whole in zip(rows, wholes, strict=True):
                known = tokens[row]
                if whole[: len(known)] != known:
                    whole = known + self._encode([rendered[row].text[bounds[row][depth - 1] : bounds[row][depth]]])[0]
                tokens[row] = whole
                starts[row].append(len(whole))
        before, stop = len(self.prefix), self.stop_ids[0]
        return [
            (self.prefix + known, [(before + start, before + known.index(stop, start) + 1) for start in begun[:-1]])
            for known, begun in zip(tokens, starts, strict=True)
        ]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


class PaperTemplate(Template):
    r"""``Human: {prompt}\n\nAssistant: {answer}`` and EOS (authors' code), after what a tokenizer puts before texts.

    Further turns follow after a blank line, and so does the first one after a system message, which stands by itself.

    The space before an answer belongs to the answer: tokens begin with their space, so that a prompt which ended in one
    would end in a token that no training text has.

    Args:
        tokenizer: A Hugging Face tokenizer with an EOS token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        alone = self._encode(["a"])[0]
        whole = tokenizer("a")["input_ids"]
        self.prefix = next((whole[:n] for n in range(len(whole)) if whole[n : n + len(alone)] == alone), [])
        self.stop_ids = [tokenizer.eos_token_id]

    def render(self, messages: Sequence[Message], where: str) -> Rendered:
        """The text of a conversation."""
        text, answers = "", []
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "assistant":
                answers.append(len(text))
                text += f" {content}{self.tokenizer.eos_token}"
            else:
                turn = content if role == "system" else f"Human: {content}\n\nAssistant:"
                text += f"\n\n{turn}" if text else turn
        return Rendered(text, answers)


class ChatTemplate(Template):
    """The tokenizer's own chat template, tokenized as ``apply_chat_template`` does it.

    An answer begins where the prompt that asks for it ends, and ends with the special token that the template puts
    behind it. Templates need not mark answers themselves.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.

    Raises:
        UsageError: There is no chat template, or it does not end an answer with a special token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.prefix = []  # a template writes BOS itself
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                f"the backbone's tokenizer has no chat template; {OTHER}, or a backbone that was made for chats"
            )
        probe = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        behind = self._apply(probe, "every conversation").rpartition("answer")[2]
        added = {token for token, text in tokenizer.added_tokens_decoder.items() if text.content.strip()}
        ending = next((token for token in self._encode([behind])[0] if token in added), None)
        if ending is None:
            raise UsageError(
                "the tokenizer's chat template does not end an answer with a special token, so that a model would not "
                f"learn to stop; {OTHER}"
            )
        self.ending: str = tokenizer.convert_ids_to_tokens(ending)
        self.stop_ids = [*dict.fromkeys([ending, tokenizer.eos_token_id])]

    def render(self, messages: Sequence[Message], where: str) -> Rendered:
        """The text of a conversation.

        Raises:
            UsageError: The template refuses it, or does not write a prompt in training as it does when it asks.
        """
        text, answers = self._apply(messages, where), []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = self._apply(messages[:number], where)
                if not text.startswith(prompt) or self.ending not in text[len(prompt) :]:
                    raise UsageError(
                        f"the tokenizer's chat template writes the prompt of {where} in one way to train on and in "
                        f"another to answer; {OTHER}"
                    )
                answers.append(len(prompt))
        return Rendered(text, answers)

    def _apply(self, messages: Sequence[Message], where: str) -> str:
        asks = messages[-1]["role"] != "assistant"
        try:
            return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)
        except (TemplateError, ValueError, TypeError) as error:
            raise UsageError(f"the tokenizer's chat template refuses {where}: {error}") from error


def make_template(name: TemplateName, tokenizer: Any) -> Template:
    """The template of a name.

    Args:
        name: ``paper`` or ``chat``.
        tokenizer: A Hugging Face tokenizer.

    Raises:
        UsageError: The tokenizer has no chat template.
    """
    return ChatTemplate(tokenizer) if name == "chat" else PaperTemplate(tokenizer)
