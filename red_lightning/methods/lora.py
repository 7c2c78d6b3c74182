"""LoRA, Low-Rank Adaptation: ``h = W x + (alpha / rank) * B A x`` (arXiv 2106.09685, section 4.1, equation 3)."""

from typing import Any

from torch import nn

from red_lightning.errors import require_range
from red_lightning.methods.peft_layers import PeftLayers


class LoRA(PeftLayers):
    """LoRA, Low-Rank Adaptation: add the product of two thin learned matrices to each adapted weight.

    ``A`` (rank x inputs) starts random, ``B`` (outputs x rank) at zeros. GPT-2's fused query, key and value get one
    pair, as in the paper. So does a fused projection without sites for its parts (Phi-3, GPT-NeoX). ``query``, ``key``
    and ``value`` of T5 include its cross-attention.

    Args:
        sites: Linears to adapt: site names (``query`` and ``value`` in the paper), module-name patterns such as
            ``*.mlp.down_proj``, or null for every linear of the blocks.
        rank: Rows of ``A`` and columns of ``B``.
        alpha: The update is multiplied by ``alpha / rank``.
        dropout: Dropout probability of the input of ``A``, in training.
        layers: Layers to adapt, counted from 0 (negative: from the last). null adapts all.
    """

    sizes = ("rank",)

    def __init__(
        self,
        sites: list[str] | None = ["query", "value"],  # noqa: B006 - never changed; a literal default shows in --help
        rank: int = 8,
        alpha: float = 8,
        dropout: float = 0.0,
        layers: list[int] | None = None,
    ) -> None:
        require_range("model.method.rank", rank, 1)
        require_range("model.method.dropout", dropout, 0, 1)
        self.sites = None if sites is None else list(sites)
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.layers = None if layers is None else list(layers)

    def config(self, backbone: nn.Module) -> Any:
        """Return peft's configuration."""
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)  # type: ignore[arg-type]
