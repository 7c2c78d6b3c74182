"""Generate texts for prompts. Each text equals that of its prompt alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal

import torch

from red_lightning.adapters import Edited
from red_lightning.data.collation import pad
from red_lightning.data.messages import Message
from red_lightning.editing.unedited import unedited
from red_lightning.errors import UsageError, enough_memory, require_range
from red_lightning.generation.decoding import decode
from red_lightning.generation.decoding_options import Decoding
from red_lightning.generation.prompts import Prompt, Prompts, PromptStyle, TemplateChanges

LONGEST = 768
"""Maximum number of new tokens of models that do not say another."""


class Writer:
    """Writes texts with a model that :func:`red_lightning.load` gave.

    For example::

        writer = Writer(red_lightning.load("runs/mine", device="cuda"))
        answers = writer.answer([[{"role": "user", "content": "What is RED?"}]])
        with writer.unedited():
            before = writer.answer([[{"role": "user", "content": "What is RED?"}]])

    Args:
        edited: The model.
        decoding: How to decode; None for how the run did whose edits they are.
        template: How a prompt becomes tokens: ``source``, ``paper``, ``chat`` or ``plain`` (see
            :data:`~red_lightning.generation.prompts.PromptStyle`); None for how the edits were trained, and for a model
            without edits ``chat`` if its tokenizer has a chat template, else ``plain``.
        batch_size: Prompts that are decoded at once; the texts do not depend on it.
        overlong: What becomes of a prompt that is too long: ``refuse``, or ``cut`` (the end of a source, as in
            training; the beginning of anything else, so that half of the context is free).
        changes: Settings of the template that replace those of the training.

    Attributes:
        edited: The model.
        decoding: How it decodes.
        prompts: How its prompts become tokens.

    Raises:
        UsageError: The edits are a classifier's, or there is no such template.
    """

    def __init__(
        self,
        edited: Edited,
        decoding: Decoding | None = None,
        template: PromptStyle | None = None,
        batch_size: int = 8,
        overlong: Literal["refuse", "cut"] = "refuse",
        changes: TemplateChanges | None = None,
    ) -> None:
        require_range("batch_size", batch_size, 1)
        self.edited, self.batch_size = edited, batch_size
        self.prompts = Prompts(edited, template, overlong, changes)
        self.decoding = decoding or trained_decoding(edited.record)

    def answer(self, conversations: Sequence[list[Message]]) -> list[str]:
        """Answer the last user message of each conversation.

        Args:
            conversations: Lists of dictionaries with ``role`` (system, user or assistant) and ``content``.

        Returns:
            One answer for each.

        Raises:
            UsageError: A conversation is none, or is too long; or the model continues texts.
        """
        return self._all(conversations)

    def write(self, prompts: Sequence[str]) -> list[str]:
        """Write what follows each prompt; a model that converses takes it for the user's first message.

        Args:
            prompts: The texts.

        Returns:
            One text for each.

        Raises:
            UsageError: A prompt is empty or too long.
        """
        return self._all(prompts)

    def stream(self, prompt: Prompt, say: Callable[[str], None], where: str = "the prompt") -> str:
        """Write one text and hand on its pieces as they come (beams give it at once).

        Args:
            prompt: A text or a conversation.
            say: Is called with each piece; together they are the text.
            where: What an error calls the prompt.

        Returns:
            The text.

        Raises:
            UsageError: The prompt is empty or too long.
        """
        (tokens,) = self.encode([prompt], [where])
        if self.decoding.num_beams == 1:
            return self._decode([tokens], say)[0]
        (text,) = self._decode([tokens])
        say(text)
        return text

    def unedited(self) -> AbstractContextManager[None]:
        """Let the model write, for a while, exactly as its backbone does without edits.

        Raises:
            UsageError: The backbone's own weights were trained.
        """
        return unedited(self.edited.backbone)

    def encode(self, prompts: Sequence[Prompt], where: Sequence[str] | None = None) -> list[list[int]]:
        """The tokens of prompts, as the model reads them.

        Args:
            prompts: Texts or conversations.
            where: What an error calls each; None calls them by their number, from 1.

        Raises:
            UsageError: A prompt is empty or too long, or cannot be rendered by the template.
        """
        where = where or [f"prompt {number}" for number in range(1, len(prompts) + 1)]
        return self.prompts.tokens(prompts, where, self.decoding.max_new_tokens) if prompts else []

    def batches(
        self,
        tokens: Sequence[list[int]],
        use: Callable[[list[int]], AbstractContextManager[None]] = lambda indices: nullcontext(),
    ) -> Iterator[dict[int, str]]:
        """Decode prompts, those of like length together and the longest first.

        Args:
            tokens: Results of :meth:`encode`.
            use: Gives what is entered while the prompts of these indices are decoded, such as
                :meth:`EditBank.use <red_lightning.generation.EditBank.use>` of an edit for each.

        Yields:
            The texts of a batch, by the prompt's index.
        """
        longest_first = sorted(range(len(tokens)), key=lambda index: -len(tokens[index]))
        for _, alike in groupby(longest_first, key=lambda index: self._room(len(tokens[index]))):
            indices = list(alike)
            for first in range(0, len(indices), self.batch_size):
                batch = indices[first : first + self.batch_size]
                with use(batch):
                    texts = self._decode([tokens[index] for index in batch])
                yield dict(zip(batch, texts, strict=True))

    def _all(self, prompts: Sequence[Prompt]) -> list[str]:
        texts = {index: text for batch in self.batches(self.encode(prompts)) for index, text in batch.items()}
        return [texts[index] for index in range(len(prompts))]

    def _room(self, length: int) -> int:
        """How many tokens may follow a prompt: fewer where positions run out, so that rows with as many share a batch.

        The last token is not read any more.
        """
        wanted, positions = self.decoding.max_new_tokens, self.prompts.positions
        if positions is None:
            return wanted
        if self.edited.backbone.config.is_encoder_decoder:  # the decoder's positions count from its start token
            return min(wanted, positions)
        return max(1, min(wanted, positions - length + 1))

    def _decode(self, rows: list[list[int]], say: Callable[[str], None] | None = None) -> list[str]:
        """The texts of a batch whose rows have as much room."""
        backbone, tokenizer = self.edited.backbone, self.edited.tokenizer
        side: Literal["left", "right"] = "right" if backbone.config.is_encoder_decoder else "left"
        input_ids = pad(rows, tokenizer.pad_token_id, side).to(backbone.device)
        attention_mask = pad([[1] * len(row) for row in rows], 0, side).to(backbone.device)
        decoding = replace(self.decoding, max_new_tokens=self._room(len(rows[0])))
        way = "lower the batch_size, decoding.num_beams or decoding.max_new_tokens"
        with enough_memory("texts are written", way), torch.inference_mode():
            return decode(
                backbone, input_ids, attention_mask, tokenizer, decoding, stop_ids=self.prompts.stop_ids, say=say
            )


def trained_decoding(record: Mapping[str, Any]) -> Decoding:
    """Return how the run decoded whose edits they are, or else greedily.

    Args:
        record: The contents of ``edits.json``; empty for a model without edits.

    Raises:
        UsageError: It says something else than a decoding.
    """
    written = record.get("decoding") or {}
    default = Decoding() if record.get("task") == "DataToText" else Decoding(max_new_tokens=LONGEST)
    if not isinstance(written, Mapping):
        raise UsageError(f"the edits are damaged: edits.json says {written!r:.40} for the decoding")
    known = {name: value for name, value in vars(default).items() if name in written}
    for name, value in known.items():
        kinds = (int, float) if isinstance(value, float) else (type(value),)
        if type(written[name]) not in kinds:  # true is an int for Python
            raise UsageError(f"the edits are damaged: edits.json says {written[name]!r:.40} for decoding.{name}")
    return replace(default, **{name: written[name] for name in known})
