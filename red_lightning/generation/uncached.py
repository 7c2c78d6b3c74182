"""Decoding without a cache, row by row: the plain equivalent of the fast decoding.

What decodes with a cache of keys and values is compared with it at its first use, on short prompts of real tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from red_lightning.backbones.decoder_start import start_token
from red_lightning.backbones.sharding import needs_every_process
from red_lightning.editing.row_edits import BATCH
from red_lightning.efficiency.verification import verified
from red_lightning.families.positions import position_limit
from red_lightning.generation.reader import Reader

LENGTHS = (12, 7)
"""Most tokens of the two prompts that are compared; they differ, so that one of them is padded."""
SHORTEST = 4
"""Tokens of the first prompt at least; a shorter one is repeated."""
NEW = 3
"""Tokens that are read after each prompt."""


def reads_with_cache(backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> bool:
    """Return whether a :class:`Reader` gives the logits of the plain way, for beams that change places too.

    Args:
        backbone: A decoder or an encoder-decoder that :meth:`Reader.suits`.
        input_ids: Real prompts or sources: int64, shape (rows, tokens).
        attention_mask: int64, of that shape.
    """
    few = _Few(backbone, input_ids, attention_mask)
    return verified("decoding with our own cache", backbone, few.read, few.plain_beams)


def generates_with_cache(backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> bool:
    """Return whether transformers' ``generate`` gives the logits of the plain way for a padded batch with a cache.

    Arguments are those of :func:`reads_with_cache`, for any backbone.
    """
    few = _Few(backbone, input_ids, attention_mask)
    return verified("generate with a cache", backbone, few.generate, few.plain_rows)


class PlainReader:
    """Reads one row's beams token by token, and all of their tokens again each time, without mask or cache.

    It takes the place of a :class:`~red_lightning.generation.reader.Reader`.

    Args:
        backbone: A decoder or an encoder-decoder.
        source: What an encoder-decoder's encoder reads: int64, shape (1, tokens).
    """

    def __init__(self, backbone: Any, source: Tensor | None = None) -> None:
        self.backbone, self.source = backbone, source
        self.tokens: Tensor | None = None

    def read(self, tokens: Tensor) -> Tensor:
        """Return the logits after tokens of shape (beams, new tokens): float32, shape (beams, vocabulary)."""
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        inputs = {"input_ids": self.tokens}
        if self.source is not None:
            inputs = {"input_ids": self.source.expand(len(self.tokens), -1), "decoder_input_ids": self.tokens}
        logits: Tensor = self.backbone(**inputs, use_cache=False).logits[:, -1]
        return logits.float()

    def widen(self, beams: int) -> None:
        """Continue with some beams, which are alike so far."""
        assert self.tokens is not None
        self.tokens = self.tokens.repeat_interleave(beams, dim=0)

    def keep(self, beams: Tensor, rows: Tensor | None = None) -> None:
        """Continue with the beams of these indices, in their order."""
        assert self.tokens is not None
        self.tokens = self.tokens.index_select(0, beams)


@contextmanager
def only(rows: Sequence[int], count: int) -> Iterator[None]:
    """Within, an :class:`~red_lightning.generation.EditBank` edits some rows of its batch, in this order.

    Args:
        rows: Their numbers.
        count: Rows of the whole batch.
    """
    edits = {editor: own.spread(count) for editor, own in BATCH.get().items()}
    chosen = {editor: own.of(torch.tensor(rows, device=own.scaling.device)) for editor, own in edits.items()}
    token = BATCH.set(chosen)
    try:
        yield
    finally:
        BATCH.reset(token)


@contextmanager
def without_published_settings(backbone: Any) -> Iterator[None]:
    """Within, ``generate`` takes no settings from the folder of the backbone, only those that it is given."""
    published = backbone.generation_config
    backbone.generation_config = GenerationConfig()
    try:
        yield
    finally:
        backbone.generation_config = published


class _Few:
    """Two short prompts of real tokens, each with some new tokens in two beams.

    Args:
        backbone: The model.
        input_ids: int64, shape (rows, tokens).
        attention_mask: int64, of that shape.
    """

    def __init__(self, backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.backbone, self.ids, self.mask = backbone, input_ids, attention_mask
        self.encodes = bool(backbone.config.is_encoder_decoder)

    @cached_property
    def texts(self) -> list[Tensor]:
        """The first and the last row's tokens: int64, each of shape (tokens,)."""
        limit = position_limit(self.backbone.config)
        room = max(LENGTHS) if limit is None else max(1, limit // 2 - NEW)
        lengths = [min(most, room) for most in LENGTHS]
        first, last = (self.ids[row][self.mask[row] > 0] for row in (0, -1))
        if 0 < len(first) < SHORTEST:
            first = first.repeat(SHORTEST)
        first = first[: lengths[0]]
        return [first, last[: max(1, min(lengths[1], len(first) - 1))]]  # shorter, so that it is padded

    @cached_property
    def new(self) -> Tensor:
        """The tokens that are read after the prompts: int64, shape (rows, beams, new tokens)."""
        tokens = torch.cat(self.texts)
        return tokens[torch.arange(4 * NEW, device=tokens.device) * 5 % len(tokens)].view(2, 2, NEW)

    def chosen(self, *rows: int) -> Any:
        """Within, an edit bank edits these of the two rows."""
        return only([(0, len(self.ids) - 1)[row] for row in rows], len(self.ids))

    def batch(self) -> dict[str, Tensor]:
        """Both prompts, padded: a decoder's on the left, an encoder-decoder's sources on the right."""
        texts = self.texts
        longest = max(map(len, texts))
        ids, mask = self.ids.new_zeros(2, longest), self.mask.new_zeros(2, longest)
        for row, text in enumerate(texts):
            place = slice(0, len(text)) if self.encodes else slice(longest - len(text), longest)
            ids[row, place], mask[row, place] = text, 1
        return {"input_ids": ids, "attention_mask": mask}

    def start(self, rows: int) -> Tensor:
        """What an encoder-decoder's decoder starts with: int64, shape (rows, 1)."""
        return self.ids.new_full((rows, 1), start_token(self.backbone.config))

    def read(self) -> Tensor:
        """The logits of a reader whose beams change places after each new token, and which forgets a row.

        Returns:
            Shape (14, vocabulary).
        """
        batch, new = self.batch(), self.new
        swapped, last = torch.tensor([1, 0, 3, 2], device=new.device), torch.tensor([2, 3], device=new.device)
        with self.chosen(0, 1):
            encoded = self.backbone.get_encoder()(**batch) if self.encodes else None
            with Reader(self.backbone, batch["attention_mask"], encoded) as reader:
                logits = [
                    reader.read(self.start(2) if self.encodes else batch["input_ids"]).repeat_interleave(2, dim=0)
                ]
                reader.widen(2)
                logits.append(reader.read(new[..., :1].flatten(0, 1)))
                reader.keep(swapped)
                logits.append(reader.read(new[..., 1:2].flip(1).flatten(0, 1)))
                reader.keep(swapped)
                reader.keep(last, last.new_ones(1))
                logits.append(reader.read(new[1, :, 2:]))
        return torch.cat(logits)

    def plain_beams(self) -> Tensor:
        """The same from a pass over all tokens of each beam: those of a row are equally long, and share a pass."""
        if not all(map(len, self.texts)):
            return torch.empty(0)  # nothing to compare
        steps = [self.logits(row, self.new[row]).unbind(1) for row in range(2)]
        before, first, second = (torch.stack([of_row[step] for of_row in steps]) for step in range(3))
        return torch.cat([part.flatten(0, 1) for part in (before, first, second.flip(1))] + [steps[1][3]])

    def generate(self) -> Tensor:
        """The logits of ``generate``, made to choose the new tokens of the first beams: shape (6, vocabulary)."""
        forced = self.new[:, 0]
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=NEW,
            pad_token_id=0,
            decoder_start_token_id=start_token(self.backbone.config) if self.encodes else None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        with self.chosen(0, 1), without_published_settings(self.backbone):
            found = self.backbone.generate(
                **self.batch(),
                generation_config=settings,
                logits_processor=LogitsProcessorList([_Forced(forced)]),
                synced_gpus=needs_every_process(self.backbone) or None,
            )
        return torch.cat(found.logits)

    def plain_rows(self) -> Tensor:
        """The same from a pass over all tokens of each row."""
        if not all(map(len, self.texts)):
            return torch.empty(0)
        rows = torch.cat([self.logits(row, self.new[row, :1])[:, :NEW] for row in range(2)])
        return rows.transpose(0, 1).flatten(0, 1)

    def logits(self, row: int, new: Tensor) -> Tensor:
        """The logits after a prompt and after each new token, without a cache.

        Args:
            row: Number of the prompt.
            new: int64, shape (beams, new tokens).

        Returns:
            Shape (beams, new tokens + 1, vocabulary).
        """
        text = self.texts[row].expand(len(new), -1)
        inputs = {"input_ids": torch.cat([text, new], dim=1)}
        if self.encodes:
            inputs = {"input_ids": text, "decoder_input_ids": torch.cat([self.start(len(new)), new], dim=1)}
        with self.chosen(row):
            logits: Tensor = self.backbone(**inputs, use_cache=False).logits
        return logits[:, -1 - new.shape[1] :].float()


class _Forced(LogitsProcessor):
    """Lets ``generate`` choose given tokens.

    Args:
        tokens: int64, shape (rows, new tokens).
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.step = tokens, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Let the next token be the likeliest."""
        scores = scores.scatter(1, self.tokens[:, self.step, None], torch.inf)
        self.step += 1
        return scores
