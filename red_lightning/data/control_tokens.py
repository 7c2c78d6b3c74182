"""Keep the control tokens of a tokenizer apart from text that spells them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from red_lightning.errors import UsageError

FIRST_MARK = 0x10F000
"""The first of the private-use characters that stand for control tokens (plane 16, which no known font uses)."""
LAST_MARK = 0x10FFFD
TOKENS = ("tokens", "input_ids", "source", "target")
"""The columns of encoded rows that hold token ids."""


def encode_texts(tokenizer: Any, *texts: list[str], **options: Any) -> Any:
    """Call a tokenizer on texts, or pairs of texts, that hold no control tokens: what spells one is text.

    Args:
        tokenizer: A Hugging Face tokenizer.
        *texts: The texts, and the second texts of pairs.
        **options: Those of a call of the tokenizer.
    """
    control = ControlTokens(tokenizer)
    return (control.copy if control.spelled_in(texts) else tokenizer)(*texts, **options)


def require_embedded(
    tokenizer: Any, rows: Iterable[Mapping[str, Any]], config: Any, where: Callable[[int], str]
) -> None:
    """Refuse tokens that the backbone has no embedding for. CUDA would stop with an assertion in the middle of a run.

    Args:
        tokenizer: The tokenizer that wrote them.
        rows: Rows with token ids in some of the columns :data:`TOKENS`.
        config: The backbone's, which says how many tokens it embeds; None if there is no backbone.
        where: Returns what an error calls the row of a number, from 1.

    Raises:
        UsageError: Names the token and the row.
    """
    embedded = None if config is None else getattr(config.get_text_config(), "vocab_size", None)
    if embedded is None or len(tokenizer) <= embedded:
        return
    for number, row in enumerate(rows):
        largest = max((max(row[key], default=0) for key in TOKENS if key in row), default=0)
        if largest >= embedded:
            token, place = tokenizer.convert_ids_to_tokens(largest), where(row.get("row", number) + 1)
            raise UsageError(
                f"{place} has the token '{token}' (id {largest}), but the backbone embeds {embedded:,} tokens only. "
                "Choose a template without it (--data.template paper), or a backbone that was saved after the token "
                "was added"
            )


class ControlTokens:
    """The control tokens of a tokenizer, and an encoder that does not read them out of text.

    A tokenizer reads ``</s>`` in a text as the control token. Here each control token gets a *mark*, one private-use
    character. Templates render texts in which :meth:`hide` has replaced such spellings by marks, so that every spelling
    in the result is the template's own. :meth:`exchange` then swaps the two: the marks are the control tokens, and the
    texts are as they were. :meth:`encode` uses a copy of the tokenizer that knows its control tokens by their marks
    only. So texts get the tokens of ``split_special_tokens=True``, also behind and before control tokens.

    Args:
        tokenizer: A Hugging Face tokenizer.
        more: Token ids that are control tokens here besides the tokenizer's special tokens.
    """

    def __init__(self, tokenizer: Any, more: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.ids: dict[str, int] = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip() and token.special
        }
        self.ids.update({tokenizer.convert_ids_to_tokens(number): number for number in more})
        self._marks = {text: chr(FIRST_MARK + number) for number, text in enumerate(self.ids)}
        self._texts = {mark: text for text, mark in self._marks.items()}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._either = re.compile(f"{self._spelled.pattern}|{MARK.pattern}")

    def spelled_in(self, value: Any) -> bool:
        """Return whether a text, or a text within lists and dictionaries, spells a control token."""
        if isinstance(value, str):
            return self._spelled.search(value) is not None
        if isinstance(value, Mapping):
            return self.spelled_in([*value, *value.values()])
        return isinstance(value, list | tuple) and any(map(self.spelled_in, value))

    def hide(self, value: Any, where: str) -> Any:
        """Return a value with marks for the control tokens that its texts spell.

        Args:
            value: A text, or lists and dictionaries that hold texts.
            where: What an error calls the row.

        Raises:
            UsageError: A text holds one of the private-use characters that are marks.
        """
        if isinstance(value, str):
            if found := MARK.search(value):
                raise UsageError(
                    f"{where} holds the private-use character U+{ord(found.group()):X} beside the text of a control "
                    "token. Remove one of them"
                )
            return self._spelled.sub(lambda match: self._marks[match.group()], value)
        if isinstance(value, Mapping):
            return {self.hide(key, where): self.hide(part, where) for key, part in value.items()}
        return [self.hide(part, where) for part in value] if isinstance(value, list | tuple) else value

    def exchange(self, text: str) -> str:
        """Return a rendered text with marks for its control tokens, and the spellings that :meth:`hide` replaced."""
        return self._either.sub(lambda match: self._marks.get(match.group()) or self._texts[match.group()], text)

    def mark(self, text: str) -> str:
        """Return the mark of a control token."""
        return self._marks[text]

    def encode(self, texts: list[str], apart: bool, **options: Any) -> list[list[int]]:
        """Return the token ids of texts.

        Args:
            texts: The texts.
            apart: Whether control tokens are marks (see :meth:`exchange`) and their spellings are text.
            **options: Those of a call of the tokenizer.
        """
        if not texts:
            return []
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False, **options}
        if apart:
            return self.copy(texts, **options)["input_ids"]
        # said on each call, because a tokenizer_config.json can switch it on, and then no template could write a token
        return self.tokenizer(texts, split_special_tokens=False, **options)["input_ids"]

    @cached_property
    def copy(self) -> Any:
        """The tokenizer with marks in place of the texts of its control tokens. Token ids are the same.

        Raises:
            UsageError: It is no tokenizer of the library ``tokenizers``, or the ids would change.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise UsageError(
                f"a text spells one of the control tokens {', '.join([*self.ids][:5])}, which the tokenizer "
                f"{type(self.tokenizer).__name__} cannot keep apart from text, as it is written in Python. Remove the "
                "text, use a fast tokenizer, or give --data.split_special_tokens false to read it as a control token"
            )
        known = json.loads(backend.to_str())
        known["truncation"] = known["padding"] = None
        for token in known["added_tokens"]:
            token["content"] = self._marks.get(token["content"], token["content"])
        model = known["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._marks.get(text, text): number for text, number in model["vocab"].items()}
        else:  # Unigram
            model["vocab"] = [[self._marks.get(text, text), score] for text, score in model["vocab"]]
        if model.get("unk_token") is not None:
            model["unk_token"] = self._marks.get(model["unk_token"], model["unk_token"])
        copied = Tokenizer.from_str(json.dumps(known))
        if any(copied.token_to_id(self._marks[text]) != number for text, number in self.ids.items()):
            raise UsageError("the tokenizer's control tokens cannot be kept apart from text that spells them")
        sides = {name: getattr(self.tokenizer, name) for name in ("truncation_side", "padding_side")}
        return PreTrainedTokenizerFast(
            tokenizer_object=copied, model_input_names=self.tokenizer.model_input_names, **sides
        )


MARK = re.compile(f"[{chr(FIRST_MARK)}-{chr(LAST_MARK)}]")
