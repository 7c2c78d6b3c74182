"""QLoRA: LoRA at every linear of a 4-bit backbone (arXiv 2305.14314, section 3, equation 5)."""

from torch import nn

from red_lightning.backbones.quantization import is_quantized
from red_lightning.errors import UsageError
from red_lightning.methods.lora import LoRA


class QLoRA(LoRA):
    """LoRA on a quantized backbone, with the settings of the QLoRA paper.

    Weights are dequantized to ``model.backbone_options.dtype`` for computation (paper: bfloat16).

    Args:
        sites: Linears to adapt: site names, module-name patterns, or null for every linear of the blocks (the paper).
        rank: Rows of ``A`` and columns of ``B`` (paper, appendix B.2: 64).
        alpha: The update is multiplied by ``alpha / rank`` (paper: 16).
        dropout: Dropout probability of the input of ``A``, in training (paper: 0.1 up to 13B parameters, 0.05 beyond).
        layers: Layers to adapt, counted from 0 (negative: from the last). null adapts all.
    """

    weights = "quantized"

    def __init__(
        self,
        sites: list[str] | None = None,
        rank: int = 64,
        alpha: float = 16,
        dropout: float = 0.1,
        layers: list[int] | None = None,
    ) -> None:
        super().__init__(sites, rank, alpha, dropout, layers)

    def dense(self) -> LoRA:
        """Return LoRA with the same options."""
        return LoRA(self.sites, self.rank, self.alpha, self.dropout, self.layers)

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """See :meth:`LoRA.apply`.

        Raises:
            UsageError: The backbone is not quantized, or as there.
        """
        meta = any(parameter.is_meta for parameter in backbone.parameters())  # it is counted only
        if not meta and not is_quantized(backbone):
            raise UsageError(
                "QLoRA adapts a backbone of quantized weights, and this one's are not; give "
                "--model.backbone_options.quantization nf4, or choose model.method LoRA"
            )
        return super().apply(backbone)
