"""Full fine-tuning (``FT`` in the tables of arXiv 2402.15179)."""

from collections.abc import Iterable

import torch
from torch import nn

from red_lightning.backbones.quantization import in_fewer_bits
from red_lightning.editing.surgery import trainable
from red_lightning.errors import UsageError
from red_lightning.methods.method import Method


class FullFineTuning(Method):
    """Train all weights of the backbone (``FT`` in the paper's tables).

    The weights must be float32. With ``trainer.precision`` bf16-mixed, computation is still 16-bit.
    """

    combines = "mean"
    weights = "float32"
    tags = ()

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Make every parameter trainable.

        Args:
            backbone: A Hugging Face model.

        Returns:
            All its parameters, by name.

        Raises:
            UsageError: They are not float32.
        """
        self.require_float32(backbone.parameters())
        backbone.requires_grad_(True)
        return trainable(backbone)

    def require_float32(self, weights: Iterable[nn.Parameter]) -> None:
        """Refuse to train weights of fewer than 32 bits, except on the meta device, where they are only counted.

        Raises:
            UsageError: Some are quantized or 16-bit.
        """
        whole = (torch.float32, torch.float64)
        if any((in_fewer_bits(p) or p.dtype not in whole) and not p.is_meta for p in weights):
            raise UsageError(
                f"model.method {type(self).__name__} trains the backbone's own weights, and in fewer than 32 bits they "
                "lose small steps; give model.backbone_options.dtype float32 and no quantization (with "
                "trainer.precision bf16-mixed the computation stays 16-bit)"
            )

    def detach(self, backbone: nn.Module) -> None:
        """Refuse.

        Raises:
            UsageError: The backbone's own weights were trained.
        """
        raise UsageError(
            f"{type(self).__name__} cannot be detached: it trains the backbone's own weights; load it once more"
        )

    def fold(self, backbone: nn.Module) -> None:
        """Do nothing: the trained parameters are the backbone's own weights."""
