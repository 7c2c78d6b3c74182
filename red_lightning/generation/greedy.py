"""Greedy decoding that finishes each row early."""

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from red_lightning.generation.logits_processors import Processors
from red_lightning.generation.reader import Reads
from red_lightning.generation.stop_texts import StopTexts


def greedy(
    reader: Reads,
    prompts: Tensor,
    processors: Processors,
    max_new_tokens: int,
    stop_ids: Tensor,
    pad_id: int,
    stream: BaseStreamer | None = None,
    stops: StopTexts | None = None,
) -> Tensor:
    """Write the likeliest token after each prompt, and so on.

    Args:
        reader: Has read nothing yet.
        prompts: int64, shape (rows, tokens); negative at padding.
        processors: Change the logits of the next token, given all tokens so far (negative at padding).
        max_new_tokens: Most tokens of a text, its end included.
        stop_ids: Tokens that end a text: int64, shape (count,).
        pad_id: Fills a row behind its end.
        stream: Is given the prompts and each token of a single row.
        stops: Tells which rows end because of their text.

    Returns:
        The new tokens: int64, shape (rows, at most ``max_new_tokens``).
    """
    rows = torch.arange(len(prompts), device=prompts.device)
    written = prompts.new_full((len(prompts), max_new_tokens), pad_id)
    stream = stream or _Nobody()
    stream.put(prompts)
    tokens, logits = prompts, reader.read(prompts.clamp(min=0))
    reader.widen(1)
    for length in range(1, max_new_tokens + 1):
        new = processors(tokens, logits).argmax(dim=-1)
        stream.put(new)
        written[rows, length - 1] = new
        tokens = torch.cat([tokens, new[:, None]], dim=1)
        ends = torch.isin(new, stop_ids)
        if stops is not None:
            ends |= stops(written[rows, :length])
        if length == max_new_tokens or ends.all():
            break
        if ends.any():
            (left,) = (~ends).nonzero(as_tuple=True)
            rows, tokens = rows[left], tokens[left]
            reader.keep(left, left)
            processors.keep(left)
        logits = reader.read(tokens[:, -1:])
    stream.end()
    return written[:, :length]


class _Nobody(BaseStreamer):
    """Whom no token is handed on to."""

    def put(self, value: Tensor) -> None:
        """Let it be."""

    def end(self) -> None:
        """Let it be."""
