"""(IA)3: learned scalings of keys, values and the input of the FFN's last linear (arXiv 2205.05638, section 3.3).

``softmax(Q (l_k * K)^T / sqrt(d)) (l_v * V)`` and ``(l_ff * f(W1 x)) W2``, where ``*`` multiplies elementwise.
"""

from typing import Any

from torch import nn

from red_lightning.methods.peft_layers import PeftLayers, one_of


class IA3(PeftLayers):
    """(IA)3, Infused Adapter by Inhibiting and Amplifying Inner Activations: learned scalings that start at ones.

    At the site ``ffn`` the input of the linear is scaled, at any other site the output. A fused projection is scaled as
    a whole, so GPT-2's queries are scaled too, as in peft. ``key`` and ``value`` of T5 include its cross-attention, as
    in the paper.

    Args:
        sites: Linears to adapt: site names (``key``, ``value`` and ``ffn`` in the paper), module-name patterns, or null
            for every linear of the blocks.
        layers: Layers to adapt, counted from 0 (negative: from the last). null adapts all.
    """

    def __init__(
        self,
        sites: list[str] | None = ["key", "value", "ffn"],  # noqa: B006 - never changed
        layers: list[int] | None = None,
    ) -> None:
        self.sites = None if sites is None else list(sites)
        self.layers = None if layers is None else list(layers)

    def config(self, backbone: nn.Module) -> Any:
        """Return peft's configuration."""
        from peft import IA3Config

        scaled_before = IA3(["ffn"]).targets(backbone) if self.sites is None or "ffn" in self.sites else []
        return IA3Config(feedforward_modules=one_of(scaled_before))
