"""Train the classification head only (linear probing)."""

from torch import nn

from red_lightning.editing.surgery import freeze
from red_lightning.families import Architecture
from red_lightning.methods.method import Method


class HeadOnly(Method):
    """Train the classification head on the frozen backbone (linear probing): the baseline for every method."""

    combines = "mean"
    tags = ()

    @classmethod
    def limit(cls, record: Architecture | None, has_head: bool) -> str:
        """Refuse tasks without a classification head."""
        if not has_head:
            return "trains nothing but a classification head, and this task has none; choose another method"
        return super().limit(record, has_head)

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
        """Do nothing: the backbone is unchanged."""
