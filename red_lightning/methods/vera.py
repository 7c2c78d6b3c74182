"""VeRA, Vector-based Random Matrix Adaptation: ``h = W x + b * (B (d * (A x)))`` (arXiv 2310.11454, equation 2)."""

from typing import Any

from torch import nn

from red_lightning.errors import require_range
from red_lightning.methods.peft_layers import PeftLayers


class VeRA(PeftLayers):
    """VeRA, Vector-based Random Matrix Adaptation: LoRA with frozen random matrices and two learned vectors per linear.

    All linears share ``A`` and ``B`` (each uses as many columns and rows as it is wide). They are not saved, but
    derived from ``projection_seed``. ``b`` (one number per output) starts at zeros, ``d`` (rank) at ``initial_d``.

    Args:
        sites: Linears to adapt: site names (``query`` and ``value`` in the paper), module-name patterns, or null for
            every linear of the blocks.
        rank: Rows of ``A`` and columns of ``B`` (paper: 1024 for RoBERTa-base, 256 for RoBERTa-large).
        initial_d: Initial value of ``d`` (paper, section 3.2: 0.1).
        dropout: Dropout probability of the input of ``A``, in training.
        projection_seed: Seed of ``A`` and ``B``, independent of the run's seed.
        layers: Layers to adapt, counted from 0 (negative: from the last). null adapts all.
    """

    sizes = ("rank",)

    def __init__(
        self,
        sites: list[str] | None = ["query", "value"],  # noqa: B006 - never changed; a literal default shows in --help
        rank: int = 256,
        initial_d: float = 0.1,
        dropout: float = 0.0,
        projection_seed: int = 0,
        layers: list[int] | None = None,
    ) -> None:
        require_range("model.method.rank", rank, 1)
        require_range("model.method.dropout", dropout, 0, 1)
        self.sites = None if sites is None else list(sites)
        self.rank = rank
        self.initial_d = initial_d
        self.dropout = dropout
        self.projection_seed = projection_seed
        self.layers = None if layers is None else list(layers)

    def config(self, backbone: nn.Module) -> Any:
        """Return peft's configuration."""
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank,
            d_initial=self.initial_d,
            vera_dropout=self.dropout,
            projection_prng_key=self.projection_seed,
        )
