"""Switch the edits of a backbone off and on again, in memory: two models for the weights of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from red_lightning.backbones.surgery import EDITOR, trainable
from red_lightning.backbones.virtual_tokens import TOKENS
from red_lightning.errors import UsageError


@contextmanager
def unedited(backbone: nn.Module) -> Iterator[None]:
    """Let a backbone be, for a while, bit for bit what it was before a method was applied to it.

    The package's hooks are lifted out, and linears inside peft's layers stand under their own names.

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
    lifted = [(hooks, dict(hooks)) for module in backbone.modules() for hooks in _hooks(module)]
    layers = [(name, module) for name, module in backbone.named_modules() if hasattr(module, "base_layer")]
    try:
        for hooks, _ in lifted:
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
        for name, layer in layers:
            _put(backbone, name, layer.base_layer)
        yield
    finally:
        for hooks, before in lifted:
            hooks.clear()
            hooks.update(before)
        for name, layer in layers:
            _put(backbone, name, layer)


def _hooks(module: nn.Module) -> list[Any]:
    """The dictionaries of a module's forward hooks that hold any."""
    return [hooks for hooks in (module._forward_pre_hooks, module._forward_hooks) if hooks]


def _is_ours(hook: Any) -> bool:
    function = getattr(hook, "func", hook)  # of a partial
    return str(getattr(function, "__module__", "")).startswith(f"{__name__.partition('.')[0]}.")


def _put(backbone: nn.Module, name: str, module: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, module)
