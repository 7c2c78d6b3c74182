"""Attach, detach and merge editors on a frozen backbone.

An editor becomes a child module (named :data:`EDITOR`) of the module whose output it edits, and a forward hook applies
it. So pretrained parameter names survive, and code that reads ``module.weight`` (T5 does) keeps working.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from red_lightning.backbones.quantization import in_fewer_bits
from red_lightning.editing.hooks import add_hook, has_hook, remove_hooks
from red_lightning.editing.sites import Site
from red_lightning.editing.structure import structure_changed
from red_lightning.errors import UsageError

EDITOR = "editor"
"""Name of the child module that edits its parent's output."""


def attach(backbone: nn.Module, site: Site, editor: nn.Module) -> None:
    """Let ``editor`` edit the output of one site; it goes to the site's device.

    The editor is called with the site's output, and one that has a true attribute ``reads_input`` with the site's
    input besides.

    Raises:
        UsageError: The site is edited already.
    """
    module = backbone.get_submodule(site.module)
    if hasattr(module, EDITOR):
        raise UsageError(f"'{site.module}' is edited already; detach its edit first")
    structure_changed()
    module.add_module(EDITOR, editor.to(next(module.parameters()).device))
    add_hook(module, _edit_output)


def detach(backbone: nn.Module) -> None:
    """Remove every editor; afterwards the backbone is bit for bit what it was."""
    structure_changed()
    for _, module in edited_modules(backbone):
        delattr(module, EDITOR)
        remove_hooks(module, _edit_output)


def edited_modules(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules whose output an editor edits, with their names."""
    return [(name, m) for name, m in backbone.named_modules() if has_hook(m, _edit_output)]


def shared_copy(backbone: Any) -> Any:
    """A backbone with modules of its own, which can be edited apart, and the same weights in memory."""
    return deepcopy(backbone, {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())})


def require_unedited(backbone: nn.Module) -> None:
    """Refuse a backbone that is edited already, before anything is attached to it.

    Raises:
        UsageError: It is.
    """
    if edited_modules(backbone):
        raise UsageError("the backbone is edited already; detach or merge its edits first")


def edited_columns(backbone: nn.Module) -> dict[str, tuple[tuple[int, int], ...]]:
    """The ``(start, stop)`` ranges that are edited, of each module of which only some columns are."""
    columns = {
        name: getattr(module.get_submodule(EDITOR), "columns", None) for name, module in edited_modules(backbone)
    }
    return {name: ranges for name, ranges in columns.items() if ranges}


@torch.no_grad()
def fold(module: nn.Module, scaling: Tensor | None, bias: Tensor | None) -> None:
    """Merge ``scaling * h + bias`` into the linear or LayerNorm of ``h``: ``W' = diag(s) W``, ``c' = s * c + b``.

    Computed in float32 and rounded once to the weight's dtype. With 16-bit weights the folded output differs from the
    edited one by that rounding: relative 2**-8 per weight for bfloat16, 2**-11 for float16. A module without a bias
    gets one if there is a bias to fold; it works in memory, but ``save_pretrained`` writes a bias that the family's
    architecture lacks (Llama, T5) where ``from_pretrained`` ignores it: keep the edits beside such a backbone.

    Args:
        module: ``nn.Linear``, GPT-2's ``Conv1D`` or ``nn.LayerNorm``, with floating-point weights. An RMSNorm is
            refused: it has no bias, and computes without one.
        scaling: float32, shape (width,); None for ones.
        bias: float32, shape (width,); None for zeros.

    Raises:
        UsageError: The module is neither linear nor LayerNorm, or its weights are quantized.
    """
    if not isinstance(module, nn.Linear | Conv1D | nn.LayerNorm) or in_fewer_bits(module.weight):
        raise UsageError(
            f"an edit on a {type(module).__name__} cannot be merged: only the output of a linear or a LayerNorm with "
            "floating-point weights can; keep the edits beside the backbone instead"
        )
    if scaling is None and bias is None:
        return
    old = module.bias
    offset = bias if old is None else (old.float() if scaling is None else old.float() * scaling)
    if old is not None and bias is not None:
        offset = offset + bias
    if scaling is not None:
        rows = scaling[:, None] if isinstance(module, nn.Linear) else scaling
        module.weight.copy_((module.weight.float() * rows).to(module.weight.dtype))
    if offset is not None:
        module.bias = nn.Parameter(offset.to(module.weight.dtype), requires_grad=module.weight.requires_grad)


def freeze(backbone: nn.Module) -> None:
    """Let no parameter of the backbone train."""
    structure_changed()  # a method that freezes goes on to add modules
    backbone.requires_grad_(False)


def trainable(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def _edit_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook. A function of the module, so that copies and pickles of a model apply their own editors."""
    editor = module.get_submodule(EDITOR)
    read = args[:1] if getattr(editor, "reads_input", False) else ()
    if isinstance(output, tuple):
        return (editor(output[0], *read), *output[1:])
    return editor(output, *read)
