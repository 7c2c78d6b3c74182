"""A source that is read once for all of its targets: by an attention mask in a decoder, or by the encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.virtual_tokens import arguments
from red_lightning.compat.attention import attention_of
from red_lightning.families import can_pack

MASKED = (None, "sdpa", "eager")
"""The attention implementations that take a mask of every pair of tokens; None is transformers' choice between them."""


def can_share(config: Any, attention: str | None, tokens: int) -> bool:
    """Whether a backbone can read a source once for all of its targets.

    Args:
        config: Its Hugging Face configuration.
        attention: Its attention implementation; None for transformers' own choice.
        tokens: The most tokens of a source and one of its targets. A sliding window must hold them, for a mask that is
            given stands for the family's own.
    """
    if config.is_encoder_decoder:
        return True
    window = getattr(config, "sliding_window", None)
    return can_pack(config) and attention in MASKED and (window is None or tokens <= window)


def shared_mask(backbone: Any, sources: Tensor, targets: Tensor) -> Tensor:
    """The attention mask under which a target sees its source and itself, up to each of its own tokens.

    Args:
        backbone: The decoder that will read it.
        sources: Number of the source that each token belongs to: int64, shape (rows, tokens).
        targets: Number of its target, 0 in a source: int64, of that shape.

    Returns:
        Shape (rows, 1, tokens, tokens): bool, True where a token (second last) sees another, for ``sdpa``; for
        ``eager`` what is added to the scores, in the backbone's dtype.
    """
    own_source = sources[:, :, None] == sources[:, None, :]
    own_target = (targets[:, None, :] == 0) | (targets[:, :, None] == targets[:, None, :])
    sees = (own_source & own_target).tril()[:, None]
    if attention_of(backbone) == "sdpa":
        return sees
    blocked = torch.finfo(backbone.dtype).min
    return torch.zeros(sees.shape, dtype=backbone.dtype, device=sees.device).masked_fill(~sees, blocked)


@contextmanager
def encoded_once(backbone: Any, distinct: Tensor, source_of: Tensor) -> Iterator[None]:
    """Within, the encoder reads each source of a batch once, and every row is given what it made of its own.

    Args:
        backbone: An encoder-decoder, which is to be called within as always.
        distinct: A row of each source: int64, shape (sources,).
        source_of: The number of each row's source among them: int64, shape (rows,).
    """

    def choose(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        named = arguments(encoder, args, kwargs)
        for name in ("input_ids", "attention_mask", "inputs_embeds"):
            if named.get(name) is not None:
                named[name] = named[name][distinct]
        return (), named

    def hand_out(encoder: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][source_of]
        return output

    encoder = backbone.get_encoder()
    hooks = [
        encoder.register_forward_pre_hook(choose, with_kwargs=True, prepend=True),
        encoder.register_forward_hook(hand_out),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
