"""Language-model loss at the labels only, in chunks if the head is frozen.

A frozen head W needs no gradient of its own. What a label's loss says to the hidden state that predicts it,
``dl/dh = W^T (softmax(W h) - y)``, can then be computed in the forward pass, while its logits are there, and the
backward pass only scales it: logits never exist for more than a few labels, and nothing is computed twice. (Liger
Kernel, arXiv 2410.10989, section 3.2, joins a linear and its cross-entropy so, and keeps the gradient of W too.)
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from red_lightning.backbones.sharding import is_divided
from red_lightning.efficiency.verification import verified
from red_lightning.families import record_of

FEW = 16
"""Tokens whose losses are compared with those of all logits."""

AT_ONCE = 2**22
"""Logits of a frozen head that exist at once: 16 MB in float32."""

ToLogits = Callable[[Tensor], Tensor]

Way = nn.Linear | Literal["logits_to_keep"] | None
"""How logits are had where a label is: from a head that is given the hidden states there, by an argument of the model,
or, the plain way, as a part of the logits of all tokens."""


def label_losses(
    backbone: Any,
    labels: Tensor,
    predictors: Tensor | None = None,
    label_smoothing: float = 0.0,
    places: Tensor | None = None,
    **inputs: Any,
) -> Tensor:
    """The cross-entropy of each label, from logits that are computed where a label is and nowhere else.

    The backbone is called whole, and once, so that whatever is wrapped around it or hooked to it works. If its family
    has a record and its head is a linear, that is given the labels' hidden states alone; and it is computed in parts if
    it neither trains nor is divided over processes. A GPU is not waited for if the places are given.

    Args:
        backbone: A decoder or an encoder-decoder with a language-model head.
        labels: The token that should stand at each position: int64, shape (rows, tokens), negative where nothing is
            learned. A decoder learns nothing in the first column, which nothing precedes.
        predictors: The column whose hidden state predicts each label: int64, of that shape. None for the column before
            it in a decoder, and for its own in an encoder-decoder, whose decoder reads the labels shifted.
        label_smoothing: Share of the target probability spread over the vocabulary.
        places: Row and column of each label: int64, shape (2, labels). None looks for them.
        **inputs: What the backbone is called with.

    Returns:
        In nats, 0 where there is no label: float32, of the labels' shape.
    """
    way: Way = _head(backbone)
    if way is None and "logits_to_keep" in inspect.signature(backbone.forward).parameters:
        way = "logits_to_keep"
    if way is not None:
        few = partial(_few_losses, backbone, inputs)
        path = "loss at the labels alone"
        if isinstance(way, nn.Linear):
            path += ", by a frozen head" if _is_frozen(way) else ", by a head that trains"
        if not verified(path, backbone, partial(few, way), partial(few, None)):
            way = None
    return _losses(backbone, way, labels, predictors, label_smoothing, places, inputs)


def _few_losses(backbone: Any, inputs: dict[str, Any], way: Way) -> Tensor:
    """The losses of a few tokens of real inputs, with each token as the label of the one before it."""
    few: dict[str, Any] = {"use_cache": False}
    if backbone.config.is_encoder_decoder:
        ids = inputs["decoder_input_ids"][:1, :FEW]
        few["decoder_input_ids"] = ids
        if "encoder_outputs" in inputs:
            states = inputs["encoder_outputs"].last_hidden_state[:1]
            few["encoder_outputs"] = type(inputs["encoder_outputs"])(last_hidden_state=states)
            few["attention_mask"] = inputs["attention_mask"][:1]
        else:
            few["input_ids"] = inputs["input_ids"][:1, :FEW]
        labels = ids
    elif "input_ids" not in inputs:
        few["inputs_embeds"] = inputs["inputs_embeds"][:1, :FEW]
        labels = torch.arange(few["inputs_embeds"].shape[1], device=few["inputs_embeds"].device)[None] - 1
    else:
        mask, real = inputs.get("attention_mask"), inputs["input_ids"][0]
        if mask is not None and mask.dim() == 2:
            longest = mask.sum(1).argmax()
            real = inputs["input_ids"][longest, mask[longest] > 0]
        few["input_ids"] = ids = real[None, :FEW]
        labels = ids.clone()
        labels[:, 0] = -1
    if not labels.numel() or not (labels[:, 1:] >= 0).any():
        return torch.zeros(1)  # nothing to compare
    if way is not None:
        return _losses(backbone, way, labels, None, 0.0, None, few)
    logits, shift = backbone(**few).logits[0].float(), 0 if backbone.config.is_encoder_decoder else 1
    losses = cross_entropy(logits[: len(logits) - shift], labels[0, shift:], reduction="none")
    return torch.cat([losses.new_zeros(shift), losses])[None]


def _losses(
    backbone: Any,
    way: Way,
    labels: Tensor,
    predictors: Tensor | None,
    label_smoothing: float,
    places: Tensor | None,
    inputs: dict[str, Any],
) -> Tensor:
    """Return what :func:`label_losses` does, computed in one of its ways."""
    shift = 0 if backbone.config.is_encoder_decoder else 1
    if places is None:
        rows, columns = (labels[:, shift:] >= 0).nonzero(as_tuple=True)
        columns = columns + shift
    else:
        rows, columns = places
    at = columns - shift if predictors is None else predictors[rows, columns]
    known = labels[rows, columns]
    if isinstance(way, nn.Linear) and _is_frozen(way):
        hidden = _hidden_states(backbone, way, inputs)[rows, at]
        to_logits, at_once = _to_logits(backbone, way), max(1, AT_ONCE // way.out_features)
        losses = _LossInParts.apply(hidden, known, to_logits, label_smoothing, at_once)
    else:
        logits = _logits(backbone, way, inputs, rows, at)
        losses = cross_entropy(logits.float(), known, reduction="none", label_smoothing=label_smoothing)
    return losses.new_zeros(labels.shape).index_put((rows, columns), losses)


class _LossInParts(torch.autograd.Function):
    """The losses of some hidden states, and at once what each loss says to its hidden state, for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, labels: Tensor, to_logits: ToLogits, label_smoothing: float, at_once: int
    ) -> Tensor:
        learns = ctx.needs_input_grad[0]
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if learns else None
        for first in range(0, len(hidden), at_once):
            part = slice(first, first + at_once)
            with torch.set_grad_enabled(learns):
                states = hidden[part].detach().requires_grad_(learns)
                logits = to_logits(states)
                own = cross_entropy(logits.float(), labels[part], reduction="none", label_smoothing=label_smoothing)
            losses[part] = own.detach()
            if gradient is not None:
                scale = _scale(logits.dtype)
                (own_gradient,) = torch.autograd.grad(own, states, torch.full_like(own, scale))
                gradient[part] = own_gradient
                ctx.scale = scale
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        if len(gradient):
            gradient = (gradient * (upstream / ctx.scale)[:, None]).to(gradient.dtype)
        return gradient, None, None, None, None


def _scale(dtype: torch.dtype) -> float:
    """By what gradients are multiplied until the backward pass: float16 has no numbers for those of most logits."""
    return 1024.0 if dtype == torch.float16 else 1.0


def _head(backbone: Any) -> nn.Linear | None:
    """The linear that makes logits of hidden states, if it is known to."""
    own_code = not type(backbone).forward.__module__.startswith("transformers.")
    if own_code or record_of(backbone.config) is None:
        return None
    head = backbone.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


def _is_frozen(head: nn.Linear) -> bool:
    """Whether its weights are whole, and do not train."""
    weights = list(head.parameters())
    divided = any(is_divided(weight) or hasattr(weight, "ds_id") for weight in weights)
    return not divided and not any(weight.requires_grad for weight in weights)


@contextmanager
def _given(head: nn.Linear, choose: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, the head is given what ``choose`` makes of the hidden states, of shape (rows, tokens, width)."""
    handle = head.register_forward_pre_hook(lambda _, args: (choose(args[0]),))
    try:
        yield
    finally:
        handle.remove()


def _hidden_states(backbone: Any, head: nn.Linear, inputs: dict[str, Any]) -> Tensor:
    """What the head is given: shape (rows, tokens, width). It is called for none of them."""
    given: list[Tensor] = []

    def withhold(hidden: Tensor) -> Tensor:
        given.append(hidden)
        return hidden[:, :0]

    with _given(head, withhold):
        backbone(**inputs)
    return given[0]


def _to_logits(backbone: Any, head: nn.Linear) -> ToLogits:
    """What makes logits of hidden states, as the backbone itself does."""
    cast: dict[str, Tensor] = {}
    kind = head.weight.device.type
    if torch.is_autocast_enabled(kind):  # which would cast frozen weights anew in each part
        dtype = torch.get_autocast_dtype(kind)
        cast = {name: weight.to(dtype) for name, weight in head.named_parameters() if weight.is_floating_point()}
    record = record_of(backbone.config)
    after = record.logits if record else None
    bias: Tensor | None = getattr(backbone, record.head_bias)[0] if record and record.head_bias else None

    def to_logits(states: Tensor) -> Tensor:
        output: Tensor = functional_call(head, cast, (states,))
        output = output if bias is None else output + bias.to(output.device)
        return output if after is None else after(backbone.config, output)

    return to_logits


def _logits(backbone: Any, way: Way, inputs: dict[str, Any], rows: Tensor, columns: Tensor) -> Tensor:
    """The logits at some positions, as the backbone computes them itself: shape (positions, vocabulary)."""
    if isinstance(way, nn.Linear):
        with _given(way, lambda hidden: hidden[rows, columns][None]):
            return backbone(**inputs).logits[0]
    if way is None:
        return backbone(**inputs).logits[rows, columns]
    kept, where = columns.unique(return_inverse=True)
    return backbone(**inputs, logits_to_keep=kept).logits[rows, where]
