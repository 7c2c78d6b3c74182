"""What every way of adapting a frozen backbone can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from red_lightning.backbones import surgery
from red_lightning.errors import UsageError

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Method(ABC):
    """A way to adapt a frozen backbone: one paper, one file, one subclass.

    A method holds its options, under the names of its arguments, and no state: what it trains becomes part of the
    backbone it is applied to.
    """

    packs = True
    """Whether several texts packed into one row stay apart."""

    @abstractmethod
    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach what trains, so that the output is at first unchanged.

        First values that are random are drawn from torch's generator of the CPU, which the task seeds. What is
        attached is float32, whatever the backbone's dtype, on the backbone's device.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The parameters that train, by their name in the backbone.
        """

    def detach(self, backbone: nn.Module) -> None:
        """Remove what :meth:`apply` attached; the backbone is bit for bit what it was.

        Raises:
            UsageError: The method changes the backbone's own weights.
        """
        surgery.detach(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Merge what was learned into the backbone's own weights, and detach.

        Raises:
            UsageError: The method cannot be merged exactly.
        """
        raise UsageError(f"{type(self).__name__} cannot be folded into the backbone's weights; keep its edits instead")

    def describe(self) -> dict[str, Any]:
        """The method's name and options as plain values, for artefacts and results."""
        return {"name": type(self).__name__, **vars(self)}


class Learned(nn.Module):
    """A module that is learned: it follows the backbone to another device, but never to another dtype.

    In bfloat16 a scaling would never leave 1 (its neighbour there is 1.0078), and small steps of any other number
    would be lost too.
    """

    def _apply(self: AnyModule, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnyModule:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return nn.Module._apply(self, keep_dtype, recurse)
