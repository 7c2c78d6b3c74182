"""What every way of adapting a frozen backbone can do."""

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from red_lightning.errors import UsageError


class Method(ABC):
    """A way to adapt a frozen backbone: one paper, one file, one subclass.

    A method holds its options and no state: what it trains becomes part of the backbone it is applied to.
    """

    @abstractmethod
    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach what trains, so that the output is at first unchanged.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The parameters that train, by their name in the backbone.
        """

    def fold(self, backbone: nn.Module) -> None:
        """Merge what was learned into the backbone's own weights, and detach.

        Raises:
            UsageError: The method cannot be merged exactly.
        """
        raise UsageError(f"{type(self).__name__} cannot be folded into the backbone's weights; keep its edits instead")

    def describe(self) -> dict[str, Any]:
        """The method's name and options as plain values, for artefacts and results."""
        return {"name": type(self).__name__, **vars(self)}
