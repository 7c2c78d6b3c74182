"""Full fine-tuning: every weight of the backbone trains. The yardstick of the paper's tables (``FT``)."""

from torch import nn

from red_lightning.backbones.surgery import trainable
from red_lightning.errors import UsageError
from red_lightning.methods.base import Method


class FullFineTuning(Method):
    """Train all the weights of the backbone (``FT`` in the paper's tables)."""

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Let every parameter train.

        Args:
            backbone: A Hugging Face model.

        Returns:
            All its parameters, by name.
        """
        backbone.requires_grad_(True)
        return trainable(backbone)

    def detach(self, backbone: nn.Module) -> None:
        """Refuse.

        Raises:
            UsageError: The backbone's own weights were trained.
        """
        raise UsageError(
            f"{type(self).__name__} cannot be detached: it trains the backbone's own weights; load it once more"
        )

    def fold(self, backbone: nn.Module) -> None:
        """Nothing to do: what was learned is the backbone's own weights."""
