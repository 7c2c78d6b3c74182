"""The head alone: nothing in the backbone trains. What any method must beat (linear probing)."""

from torch import nn

from red_lightning.editing.surgery import freeze
from red_lightning.methods.method import Method


class HeadOnly(Method):
    """Train the task's head on the frozen backbone, and nothing else: the baseline that shows what a method adds."""

    combines = "mean"

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone.

        Args:
            backbone: A Hugging Face model.

        Returns:
            No parameters.
        """
        freeze(backbone)
        return {}

    def fold(self, backbone: nn.Module) -> None:
        """Nothing to do: the backbone is as it was."""
