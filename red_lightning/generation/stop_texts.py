"""End generated texts before stop texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BYTES = 4
"""The most tokens that a character takes: one for each byte of UTF-8."""


class StopTexts:
    """Tells which rows have generated a stop text.

    Args:
        tokenizer: The backbone's tokenizer.
        texts: The stop texts.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, texts
        self.window = BYTES * max(map(len, texts)) + BYTES

    def __call__(self, new: Tensor) -> Tensor:
        """Return whether the end of each row holds a stop text: bool, shape (rows,), given int64 (rows, tokens)."""
        ends = self.tokenizer.batch_decode(
            new[:, -self.window :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        found = [any(text in end for text in self.texts) for end in ends]
        return torch.tensor(found, device=new.device)


def before_stop(text: str, stops: Sequence[str], whole: bool = True) -> str:
    """Return a text up to the first stop text in it.

    Args:
        text: The text.
        stops: The stop texts.
        whole: Whether no text follows. Otherwise an end that begins a stop text is left out too.
    """
    text = text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
    if whole:
        return text
    held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - held]
