"""Prefill and incremental forward passes of a backbone."""

import inspect
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from red_lightning.backbones.sharding import generates_in_step
from red_lightning.compat.generate_inputs import is_fed_as_most
from red_lightning.compat.key_value_cache import cache_among, cache_argument
from red_lightning.editing.row_edits import BATCH
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.generation.beam_cache import widen


class Reads(Protocol):
    """What greedy decoding and beam search need of a backbone: :class:`Reader`, or a slower way to the same logits."""

    def read(self, tokens: Tensor) -> Tensor:
        """Return the logits after tokens of shape (rows x beams, new tokens)."""

    def widen(self, beams: int) -> None:
        """Continue with some beams of each row."""

    def keep(self, beams: Tensor, rows: Tensor | None = None) -> None:
        """Continue with the beams of these indices, and the rows of these."""


class Reader:
    """Reads prompts once for each row, then tokens of as many beams as are wanted, and forgets what has ended.

    It is a context manager, within which an :class:`~red_lightning.generation.EditBank` may lose rows as well.

    Args:
        backbone: One that :meth:`suits`.
        attention_mask: The prompts' (an encoder-decoder's sources'): int64, shape (rows, tokens).
        encoder_outputs: What an encoder-decoder's encoder made of the sources.
    """

    def __init__(self, backbone: nn.Module, attention_mask: Tensor, encoder_outputs: Any = None) -> None:
        self.backbone, self.mask, self.encoded = backbone, attention_mask, encoder_outputs
        self.accepted = inspect.signature(backbone.forward).parameters
        self.padded = not bool(attention_mask.all())
        self.cache: Any = None
        self.cache_argument = str(cache_argument(backbone))
        self.beams = 1

    @staticmethod
    def suits(backbone: Any) -> bool:
        """Whether a backbone's way of reading is known: a family with a record, in transformers' own code.

        Left out are families that now and then read anew what they have read (Phi-3, whose long positions begin where
        the short ones end), that keep a state in place of keys and values (``recurrent`` in their record), and
        backbones that are divided over processes, all of which must read as often.
        """
        kind = type(backbone)
        record = record_of(backbone.config)
        own = kind.__module__.startswith("transformers.") and record is not None and not record.recurrent
        return own and is_fed_as_most(backbone) and not generates_in_step(backbone)

    def __enter__(self) -> "Reader":
        self._edits = BATCH.set({editor: edits.spread(len(self.mask)) for editor, edits in BATCH.get().items()})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        BATCH.reset(self._edits)

    def read(self, tokens: Tensor) -> Tensor:
        """Read on.

        Args:
            tokens: int64, shape (rows x beams, new tokens): first the prompts (what an encoder-decoder's decoder starts
                with), left-padded; then what was written after them.

        Returns:
            The logits of the next token: float32, shape (rows x beams, vocabulary).
        """
        inputs = self._inputs(tokens) if self.encoded is None else self._decoder_inputs(tokens)
        if "logits_to_keep" in self.accepted:
            inputs["logits_to_keep"] = 1
        output = self.backbone(**inputs, **{self.cache_argument: self.cache}, use_cache=True, return_dict=True)
        logits = output.logits[:, -1].float()
        if self.cache is None and logits.isnan().any():
            raise UsageError(
                "the model's outputs are NaN: its edits are too large, or its number format too small; give "
                "--backbone_options.dtype float32, or train with a smaller learning rate"
            )
        self.cache = cache_among(output)
        return logits

    def widen(self, beams: int) -> None:
        """Go on with some beams of each row, which lie side by side."""
        widen(self.cache, beams)
        self.beams = beams
        self._take(lambda states: states.repeat_interleave(beams, dim=0))

    def keep(self, beams: Tensor, rows: Tensor | None = None) -> None:
        """Go on with some beams only, in another order.

        Args:
            beams: Their indices among all rows' beams, those of a row side by side: int64, shape (rows left x beams,).
            rows: The indices of the rows left, where rows are forgotten.
        """
        if self.beams > 1 or rows is not None:
            self.cache.reorder_cache(beams)
        if rows is not None:
            self._take(lambda states: states.index_select(0, beams))
            BATCH.set({editor: edits.of(rows) for editor, edits in BATCH.get().items()})

    def _inputs(self, tokens: Tensor) -> dict[str, Any]:
        if self.cache is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        inputs = {"input_ids": tokens, "attention_mask": self.mask if self.padded else None}
        return {**inputs, "position_ids": positions} if "position_ids" in self.accepted else inputs

    def _decoder_inputs(self, tokens: Tensor) -> dict[str, Any]:
        return {"decoder_input_ids": tokens, "attention_mask": self.mask, "encoder_outputs": self.encoded}

    def _take(self, change: Any) -> None:
        self.mask = change(self.mask)
        if self.encoded is not None:
            self.encoded = type(self.encoded)(last_hidden_state=change(self.encoded.last_hidden_state))
