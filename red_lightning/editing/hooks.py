"""Forward hooks of methods, which can be found, disabled and removed.

Their handles are kept on the module that they belong to, so that nothing has to read torch's own private tables.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

_PLACE = "red_lightning_hooks"
"""The attribute of a module that lists its hooks."""


class Hook:
    """Calls a function as a forward hook or pre-hook, unless it is off.

    A deep copy or a pickle of a model holds its own hooks with their handles. So the function must be one that copies
    and pickles by name: one of a file's top level, or a partial of one.

    Args:
        function: What torch would call.

    Attributes:
        on: Whether it is called.
        handle: torch's handle, which removes the hook.
    """

    handle: Any

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.on = function, True

    def __call__(self, *args: Any) -> Any:
        """Return what the function does; None, which changes nothing, while the hook is off."""
        return self.function(*args) if self.on else None

    def calls(self, function: Callable[..., Any]) -> bool:
        """Whether it calls a function, or a partial of it."""
        return getattr(self.function, "func", self.function) is function


def hooks_of(module: nn.Module) -> Sequence[Hook]:
    """Return the hooks that :func:`add_hook` added to a module, in that order."""
    return vars(module).get(_PLACE, ())


def add_hook(
    module: nn.Module, function: Callable[..., Any], *, before: bool = False, with_kwargs: bool = False
) -> None:
    """Add a forward hook to a module.

    Args:
        module: The module.
        function: A function of a file's top level, or a partial of one; called as torch calls forward hooks.
        before: Make it a pre-hook.
        with_kwargs: Pass it the call's arguments by name, too.
    """
    hook = Hook(function)
    register: Any = module.register_forward_pre_hook if before else module.register_forward_hook
    hook.handle = register(hook, with_kwargs=with_kwargs)
    setattr(module, _PLACE, [*hooks_of(module), hook])


def has_hook(module: nn.Module, function: Callable[..., Any]) -> bool:
    """Whether :func:`add_hook` added a function, or a partial of it, to a module."""
    return any(hook.calls(function) for hook in hooks_of(module))


def remove_hooks(module: nn.Module, *functions: Callable[..., Any]) -> None:
    """Remove the hooks of a module that call one of some functions, or a partial of one."""
    kept = []
    for hook in hooks_of(module):
        if any(hook.calls(function) for function in functions):
            hook.handle.remove()
        else:
            kept.append(hook)
    if kept:
        setattr(module, _PLACE, kept)
    elif hooks_of(module):
        delattr(module, _PLACE)
