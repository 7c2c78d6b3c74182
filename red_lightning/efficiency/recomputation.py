"""Selective activation recomputation: recompute cheap tensors in the backward pass.

Autograd keeps the tensors that operations need for their gradients. Many of them follow, by a few elementwise
operations, from others that are kept as well: the residual stream after an edit from the one before it and the edit's
own input, a factor of a gated FFN from its gate, float32 numbers from the 16-bit numbers that they were converted from.
How a tensor was made is written in the autograd graph, whatever the model's code looks like. So this reads it there,
keeps what cannot be had otherwise, and lets the same operations compute the rest again, bit for bit (after Korthikanti
et al., arXiv 2205.05198, section 5, who choose by hand what is large and cheap to compute again).

No matrix product and nothing random is computed twice. What ``operations.py`` does not know is kept as always.
"""

import threading
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.sharding import needs_every_process
from red_lightning.editing.virtual_tokens import arguments
from red_lightning.efficiency.input_only_activations import replace_activations
from red_lightning.efficiency.kept_tensors import ForwardPass
from red_lightning.efficiency.recomputed_operations import note_epsilon
from red_lightning.efficiency.verification import verified

SMALLEST = 2**17
"""Numbers in a hidden state of all tokens, below which a forward pass keeps little and looking at each tensor of it
takes longer than to compute it."""


FEW = 8
"""Tokens whose gradients are compared with those of a pass that keeps everything."""

LARGEST_COMPARED = 2**20
"""Numbers of the largest parameter whose gradient is compared."""


def recompute_selectively(backbone: nn.Module, always: bool = False) -> None:
    """Let forward passes of a backbone keep less for their backward passes.

    Outputs are bit for bit the same, and so are gradients, but for rounding where an activation is replaced
    (``activations.py``). Left alone are passes without gradients, what ``torch.compile`` traces, and blocks with
    gradient checkpointing.

    Args:
        backbone: A Hugging Face model.
        always: Do it where it costs time, too: in small passes, and on a CPU in 16 bits.
    """
    replace_activations(backbone)
    backbone.register_forward_pre_hook(partial(_begin, always), with_kwargs=True)
    backbone.register_forward_hook(_end, always_call=True)
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(note_epsilon)


class _Running(threading.local):
    """The forward pass that runs in this thread."""

    forward: ForwardPass | None = None


_running = _Running()


def _begin(always: bool, backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a backbone."""
    if torch.compiler.is_compiling():
        return
    if _running.forward is not None:  # left behind by an interrupt, which is no Exception
        _end(_running.forward.backbone)
    wanted = torch.is_grad_enabled() and (always or _pays(backbone, args, kwargs))
    if wanted and _gives_plain_gradients(backbone, args, kwargs):
        _running.forward = ForwardPass(backbone)


def _gives_plain_gradients(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a few tokens have the gradients that they have without recomputation; True where that cannot be told.

    The stack of blocks is called by itself: callers may have hooks on the whole model, for their own tokens.
    """
    if needs_every_process(backbone):
        return True
    training, encodes = backbone.training, backbone.config.is_encoder_decoder

    def gradients(recomputed: bool) -> Tensor:
        named = arguments(backbone, args, kwargs)
        ids = next(named[name] for name in ("decoder_input_ids", "input_ids") if named.get(name) is not None)
        stack = backbone.get_decoder() if encodes else backbone.base_model
        every = [p for p in stack.parameters() if p.requires_grad and p.numel() <= LARGEST_COMPARED]
        learned = every[:8] + every[8:][-8:]
        embedded = backbone.get_input_embeddings()(ids[:1, :FEW]).detach()
        inputs = {"encoder_hidden_states": embedded} if encodes else {}
        devices = [embedded.device] if embedded.is_cuda else []
        with torch.enable_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(0)  # of dropout
            backbone.train(training)
            forward = ForwardPass(backbone) if recomputed else None
            try:
                states = stack(inputs_embeds=embedded, **inputs)[0].float()
            finally:
                if forward is not None:
                    forward.end()
            weights = torch.arange(states.numel(), device=states.device).cos().view_as(states)
            found = torch.autograd.grad((states * weights).mean(), learned, allow_unused=True)
        return torch.cat([gradient.flatten().float() for gradient in found if gradient is not None])

    return verified("selective recomputation", backbone, partial(gradients, True), partial(gradients, False))


def _pays(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a forward pass keeps much, and nothing takes long to compute again."""
    inputs = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 1)
    rows, tokens = next((value.shape[:2] for value in inputs), (0, 0))
    if rows * tokens * getattr(backbone.config, "hidden_size", SMALLEST) < SMALLEST:
        return False
    weight = next(backbone.parameters())
    return weight.device.type != "cpu" or (weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"))


def _end(backbone: nn.Module, args: Any = None, output: Any = None) -> None:
    """Forward hook of a backbone; runs after an exception, too."""
    if not torch.compiler.is_compiling() and _running.forward is not None and _running.forward.backbone is backbone:
        _running.forward.end()
        _running.forward = None
