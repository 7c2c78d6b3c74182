"""A module whose numbers keep their dtype when the model around it gets another."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class KeepsDtype(nn.Module):
    """A module that follows its parent to another device, but never to another dtype.

    torch: ``Module.to``, ``half``, ``bfloat16`` and their like reach the modules inside one by ``Module._apply`` alone,
    seen in 2.4 to 2.13. Without it what is learned would be rounded to the backbone's dtype.
    """

    def _apply(self: AnyModule, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnyModule:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return nn.Module._apply(self, keep_dtype, recurse)
