"""(IA)3: learned vectors scale keys, values and what the FFN's last linear reads (arXiv 2205.05638, section 3.3).

``softmax(Q (l_k * K)^T / sqrt(d)) (l_v * V)`` and ``(l_ff * f(W1 x)) W2``, where ``*`` multiplies elementwise.
"""

from typing import Any

from torch import nn

from red_lightning.methods.peft_layers import PeftLayers, one_of


class IA3(PeftLayers):
    """(IA)3, Infused Adapter by Inhibiting and Amplifying Inner Activations: vectors that start at ones and scale.

    At the site ``ffn`` it is the input of the linear that is scaled, with one number per column of what it reads; at
    any other site it is the output. A fused projection is scaled whole, so that GPT-2's queries are scaled besides,
    as in peft; ``key`` and ``value`` of T5 are those of its cross-attention too, as in the paper.

    Args:
        sites: Which linears are adapted: names of sites (``key``, ``value`` and ``ffn``: the paper's), module-name
            patterns, or null for every linear of the blocks.
        layers: The layers to adapt, counted from 0 (negative: from the last); null for all.
    """

    def __init__(
        self,
        sites: list[str] | None = ["key", "value", "ffn"],  # noqa: B006 - never changed
        layers: list[int] | None = None,
    ) -> None:
        self.sites = None if sites is None else list(sites)
        self.layers = None if layers is None else list(layers)

    def config(self, backbone: nn.Module) -> Any:
        """Peft's configuration."""
        from peft import IA3Config

        scaled_before = IA3(["ffn"]).targets(backbone) if self.sites is None or "ffn" in self.sites else []
        return IA3Config(feedforward_modules=one_of(scaled_before))
