"""Prefill a source once for all of its targets: by an attention mask, or by the encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.compat.attention import attention_of
from red_lightning.editing.virtual_tokens import arguments
from red_lightning.efficiency.loss_head import label_losses
from red_lightning.efficiency.packed_loss import losses_apart
from red_lightning.efficiency.verification import verified
from red_lightning.families import can_pack

FEW = 10
"""Tokens of a source and of a target that are compared."""

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


def shared_losses(
    backbone: Any,
    labels: Tensor,
    predictors: Tensor,
    input_ids: Tensor,
    position_ids: Tensor,
    sources: Tensor,
    targets: Tensor,
    places: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Return the cross-entropy of each label of targets that share their sources.

    If a model does not read a shared source as it reads each target behind its own source, every target gets a row.

    Args:
        backbone: A decoder.
        labels: int64, shape (rows, tokens), negative where nothing is learned.
        predictors: The column whose hidden state predicts each label: int64, of that shape.
        input_ids: int64, of that shape.
        position_ids: int64, of that shape.
        sources: Number of the source that each token belongs to: int64, of that shape.
        targets: Number of its target, 0 in a source: int64, of that shape.
        places: Row and column of each label: int64, shape (2, labels).
        **options: Passed to :func:`~red_lightning.efficiency.loss_head.label_losses`.

    Returns:
        In nats, 0 where there is no label: float32, of the labels' shape.
    """

    def few() -> tuple[Tensor, list[Tensor]]:
        """The first source and two targets of at most a few tokens: int64, shape (tokens,)."""
        source = input_ids[0, (sources[0] == 1) & (targets[0] == 0)][-FEW:]
        target = input_ids[0, (sources[0] == 1) & (targets[0] == 1)][:FEW]
        return source, [target, target.flip(0)[: FEW - 2]]

    def shared() -> Tensor:
        source, own = few()
        ids, numbers, positions = torch.cat([source, *own]), torch.zeros_like(source), torch.arange(len(source))
        numbers = torch.cat([numbers, *(torch.full_like(target, place) for place, target in enumerate(own, start=1))])
        positions = torch.cat([positions, *(torch.arange(len(target)) + len(source) for target in own)]).to(ids.device)
        mask = shared_mask(backbone, torch.ones_like(ids)[None], numbers[None])
        inputs = {"input_ids": ids[None], "position_ids": positions[None], "attention_mask": mask}
        logits: Tensor = backbone(**inputs, use_cache=False).logits
        return logits[0, len(source) :]

    def apart() -> Tensor:
        source, own = few()
        rows = [torch.cat([source, target])[None] for target in own]
        return torch.cat([backbone(input_ids=row, use_cache=False).logits[0, len(source) :] for row in rows])

    if verified("shared sources", backbone, shared, apart):
        mask = shared_mask(backbone, sources, targets)
        inputs: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": mask}
        return label_losses(backbone, labels, predictors, places=places, use_cache=False, **inputs, **options)
    return _apart(backbone, labels, input_ids, sources, targets, options)


def _apart(
    backbone: Any, labels: Tensor, input_ids: Tensor, sources: Tensor, targets: Tensor, options: dict[str, Any]
) -> Tensor:
    """The same with a row for each target, behind a copy of its source."""
    losses = torch.zeros(labels.shape, device=labels.device)
    places: list[tuple[int, Tensor, Tensor]] = []
    for row in range(len(labels)):
        for source, target in {*zip(sources[row].tolist(), targets[row].tolist(), strict=True)}:
            if target:
                of_source = sources[row] == source
                own = of_source & (targets[row] == target)
                places.append((row, (of_source & (targets[row] == 0)).nonzero()[:, 0], own.nonzero()[:, 0]))
    ids, known = (
        [torch.cat([of[row, source], of[row, target]]) for row, source, target in places] for of in (input_ids, labels)
    )
    found = losses_apart(backbone, ids, known, **options)
    for (row, source, target), own in zip(places, found, strict=True):
        losses = losses.index_put((torch.full_like(target, row), target), own[len(source) :])
    return losses


def encodes_once(backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> bool:
    """Return whether an encoder-decoder's targets get the same logits under :func:`encoded_once` as without it.

    Args:
        backbone: The encoder-decoder.
        input_ids: Real sources: int64, shape (rows, tokens).
        attention_mask: int64, of that shape.
    """
    order = torch.tensor([0, 1, 0], device=input_ids.device)

    def logits() -> Tensor:
        ids, mask = input_ids[[0, -1]][order, :FEW], attention_mask[[0, -1]][order, :FEW]
        found: Tensor = backbone(input_ids=ids, attention_mask=mask, decoder_input_ids=ids, use_cache=False).logits
        return found

    def once() -> Tensor:
        with encoded_once(backbone, order[:2], order):
            return logits()

    return verified("sources encoded once", backbone, once, logits)


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
