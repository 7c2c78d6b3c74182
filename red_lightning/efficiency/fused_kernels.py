"""Fused norms and gated FFNs of Liger Kernel (arXiv 2410.10989, section 3.2).

Each is one pass over memory where the model's own code makes several. A norm, or what lies between the linears of an
FFN, is a child module with the same weights under the same names; each linear stays the module that it was, so that
edits sit where they sat. Liger's rotary embedding is not used: Liger puts it in the place of a function of
transformers, for every model of the process. Nor are its losses, for which there is ``loss_head.py``.
"""

import os
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from red_lightning.backbones.loading import Kernels
from red_lightning.editing.sites import epsilon_of
from red_lightning.efficiency.verification import verified
from red_lightning.errors import UsageError
from red_lightning.families import ARCHITECTURES, architecture_of

FEW = 8
"""Tokens that are compared."""

Replaced = tuple[Any, str, Any, nn.Module]
"""A module, the name of one of its children, the child itself, and what takes its place."""


def require_kernels(kernels: Kernels | None, model_type: str, compiles: bool) -> None:
    """Refuse what no fused kernels could be used for, before anything large is read.

    Args:
        kernels: Whose; None for none.
        model_type: The backbone's.
        compiles: Whether torch.compile makes the kernels of its blocks.

    Raises:
        UsageError: The family has none, Liger Kernel or Triton is not installed, there is no CUDA device, or the
            blocks are to be compiled.
    """
    if kernels is None:
        return
    option = f"model.backbone_options.kernels {kernels}"
    if compiles:
        raise UsageError(f"{option} and model.backbone_options.compile each make the blocks' kernels; give one of them")
    fused = [name for record in ARCHITECTURES for name in record.fused_ffns]
    if model_type not in fused:
        raise UsageError(f"{option} is for {', '.join(fused)}, but this is a {model_type}; leave kernels out")
    if find_spec("liger_kernel") is None or find_spec("triton") is None:
        raise UsageError(f"{option} needs packages: pip install 'red-lightning[liger]'")
    if not (torch.cuda.is_available() or _interpreted()):
        raise UsageError(f"{option} needs a CUDA device, and this machine has none; leave kernels out")


def fuse(backbone: Any, kernels: Kernels | None) -> None:
    """Let a backbone's norms and gated FFNs run as fused kernels, with the weights that they have.

    Losses and gradients are equal to rounding, also with quantized linears, gradient checkpointing and selective
    recomputation. One backward pass per forward pass: an FFN's kernel writes its gradients over what was kept for it.

    Args:
        backbone: A Hugging Face model that :func:`require_kernels` does not refuse.
        kernels: Whose; None leaves it as it is.

    Raises:
        UsageError: Its FFN has an activation that the kernels do not compute, or its code is not that of transformers.
            Later, when it is called: it is not on a CUDA device.
    """
    if kernels is None:
        return
    from liger_kernel import transformers as liger

    ffn = architecture_of(backbone.config).fused_ffns[backbone.config.model_type]
    norm_of = partial(liger.LigerRMSNorm, **ffn.norm)
    replaced: list[Replaced] = []
    for parent in list(backbone.modules()):
        for place, module in parent.named_children():
            kind = type(module)
            if not kind.__module__.startswith("transformers.models."):
                continue
            if kind.__name__.endswith("RMSNorm"):
                replaced.append((parent, place, module, _norm(module, norm_of)))
            elif kind.__name__.endswith("MLP"):
                _require_activation(module, ffn.activation)
                replaced.append((parent, place, module, _ffn(module, getattr(liger, ffn.module))))
    if not replaced:
        raise UsageError(
            f"model.backbone_options.kernels finds nothing to replace in a {type(backbone).__name__}, whose code is "
            "not that of transformers; leave kernels out"
        )
    if not _alike(backbone, replaced):
        return
    for parent, place, _, fused in replaced:
        setattr(parent, place, fused)
    backbone.register_forward_pre_hook(_require_device, with_kwargs=True)


def _alike(backbone: Any, replaced: list[Replaced]) -> bool:
    """Whether one kernel of each kind gives the values of the module that it replaces, for some tokens."""
    embedding = backbone.get_input_embeddings().weight
    if embedding.is_meta:
        return True
    device = torch.device("cpu" if _interpreted() else "cuda")

    def values(fused: bool) -> Tensor:
        states, found = embedding[:FEW].to(device), []
        for own, kernel in {type(own): (own, kernel) for _, _, own, kernel in replaced}.values():
            module = kernel if fused else own
            if next(module.parameters()).device.type != device.type:
                module = deepcopy(module).to(device)
            columns = own.weight.numel() if hasattr(own, "weight") else states.shape[-1]  # the norm of a head is narrow
            found.append(module(states[None, :, :columns]))
        return torch.cat(found, dim=-1)

    return verified("fused kernels", backbone, partial(values, True), partial(values, False))


def _norm(norm: Any, kind: Callable[..., nn.Module]) -> nn.Module:
    """A norm with the weight of another.

    Not in place, which would write over a gradient that others may need, such as that of Gemma 2's residual stream.
    """
    fused = kind(1, epsilon_of(norm), in_place=False)
    fused.weight = norm.weight
    return fused


def _ffn(ffn: Any, kind: Callable[..., nn.Module]) -> nn.Module:
    """An FFN with the linears of another."""
    with torch.device("meta"):
        fused = kind(ffn.config)
    for name in dict(fused.named_children()):
        setattr(fused, name, getattr(ffn, name))
    return fused


def _require_activation(ffn: Any, activation: str) -> None:
    """Refuse an FFN whose activation is another one."""
    own = ffn.activation_fn if hasattr(ffn, "activation_fn") else ffn.act_fn
    if type(own) is not type(ACT2FN[activation]):
        raise UsageError(
            f"model.backbone_options.kernels computes {activation} in a {type(ffn).__name__}, which has "
            f"{type(own).__name__} here; leave kernels out"
        )


def _require_device(backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a backbone: a machine with a CUDA device may train on another one."""
    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if given is not None and given.device.type != "cuda" and not _interpreted():
        raise UsageError(
            f"model.backbone_options.kernels needs a CUDA device, but the backbone is on {given.device}; leave kernels "
            "out, or give --trainer.accelerator gpu"
        )


def _interpreted() -> bool:
    """Whether Triton interprets kernels, one number of a time, which needs no device and suits tests alone."""
    return os.environ.get("TRITON_INTERPRET") == "1"
