"""Key-value cache of beams: written in place, and reordered behind the prompt only.

transformers' cache is copied twice in each step of a beam search: when beams change places, and when a token is added.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""Tokens by which a buffer grows."""


class BeamLayer(DynamicLayer):
    """One attention layer's keys and values of some rows' beams, which lie side by side.

    Args:
        layer: Those of the rows, when their prompts have been read: keys and values of one shape and dtype.
        beams: Beams of each row.
    """

    def __init__(self, layer: Any, beams: int) -> None:
        super().__init__()
        self.is_initialized, self.prompt = True, layer.get_seq_length()
        self._hold(torch.stack([layer.keys, layer.values]).repeat_interleave(beams, dim=1))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens, each of shape (rows x beams, heads, new tokens, columns of a head).

        Returns:
            Those of all tokens.
        """
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffer.shape[-2]:
            self._hold(self._buffer[..., :start, :], end - start)
        self._buffer[0, ..., start:end, :] = key_states
        self._buffer[1, ..., start:end, :] = value_states
        self.keys, self.values = keys, values = self._buffer[..., :end, :].unbind()
        return keys, values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let beams change places within their row; where there are fewer than before, the others are forgotten."""
        held = self._buffer[..., : self.get_seq_length(), :]
        if len(beam_idx) < held.shape[1]:
            self._hold(held.index_select(1, beam_idx))
        else:
            new = held[..., self.prompt :, :]
            new.copy_(new.index_select(1, beam_idx))

    def _hold(self, states: Tensor, new: int = 0) -> None:
        """Put keys and values, shape (2, rows x beams, heads, tokens, columns), where more tokens have room."""
        tokens = states.shape[-2]
        self._buffer = states.new_empty(*states.shape[:-2], tokens + new + ROOM, states.shape[-1])
        self._buffer[..., :tokens, :] = states
        self.keys, self.values = self._buffer[..., :tokens, :].unbind()


def widen(cache: Any, beams: int) -> None:
    """Make the cache of some rows that of their beams, all of which begin alike.

    Layers of other kinds than full attention (sliding windows) stay as they are, and repeat what they hold.

    Args:
        cache: A ``Cache`` of transformers that holds the rows' prompts; changed in place.
        beams: Beams of each row.
    """
    if isinstance(cache, EncoderDecoderCache):
        widen(cache.self_attention_cache, beams)
        widen(cache.cross_attention_cache, beams)
        return
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and _alike(layer.keys, layer.values):
            cache.layers[number] = BeamLayer(layer, beams)
        else:
            layer.batch_repeat_interleave(beams)


def _alike(keys: Tensor | None, values: Tensor | None) -> bool:
    return keys is not None and values is not None and (keys.shape, keys.dtype) == (values.shape, values.dtype)
