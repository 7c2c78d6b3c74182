"""Disable and enable the edits of a backbone in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from red_lightning.editing.hooks import hooks_of
from red_lightning.editing.surgery import EDITOR, trainable
from red_lightning.editing.virtual_tokens import TOKENS
from red_lightning.errors import UsageError


@contextmanager
def unedited(backbone: nn.Module) -> Iterator[None]:
    """Let a backbone be, for a while, bit for bit what it was before a method was applied to it.

    The method's hooks are switched off, and linears inside peft's layers stand under their own names.

    Args:
        backbone: The edited backbone.

    Raises:
        UsageError: The backbone's own weights were trained; nothing was changed then.
    """
    if own := [name for name in trainable(backbone) if not {EDITOR, TOKENS} & {*name.split(".")}]:
        raise UsageError(
            f"the edits cannot be switched off: they changed the backbone's own weights, such as '{own[0]}'; load the "
            "backbone once more instead"
        )
    hooks = [hook for module in backbone.modules() for hook in hooks_of(module) if hook.on]
    layers = [(name, module) for name, module in backbone.named_modules() if hasattr(module, "base_layer")]
    try:
        for hook in hooks:
            hook.on = False
        for name, layer in layers:
            _put(backbone, name, layer.base_layer)
        yield
    finally:
        for hook in hooks:
            hook.on = True
        for name, layer in layers:
            _put(backbone, name, layer)


def _put(backbone: nn.Module, name: str, module: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, module)
