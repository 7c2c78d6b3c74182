"""SSF, scale and shift: ``y = gamma * x + beta`` after every operation (arXiv 2210.08823, section 3.2, equation 3)."""

import torch
from torch import nn

from red_lightning.editing.sites import inside_blocks, linears, norms
from red_lightning.editing.surgery import attach, freeze, require_unedited, trainable
from red_lightning.errors import require_range
from red_lightning.methods.method import Method
from red_lightning.methods.red import RepresentationEditor, fold_editors


class SSF(Method):
    """SSF: scale and shift the output of every linear in the blocks and of every norm.

    Norms outside the blocks (after the embeddings, after the last block) are included, as in the authors' code.
    Embeddings, pooler and language-model head are not. A fused query, key and value (GPT-2) is one operation.
    RoBERTa-base: 204,288 parameters.

    Args:
        init_std: Standard deviation of the initial values: scales are drawn from N(1, init_std), shifts from N(0,
            init_std) (authors' code: 0.02). With 0 the output is unchanged at first.
    """

    combines = "affine"

    def __init__(self, init_std: float = 0.02) -> None:
        require_range("model.method.init_std", init_std, 0)
        self.init_std = init_std

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach a scale and a shift to each linear and norm.

        Args:
            backbone: A Hugging Face model.

        Returns:
            Them, by names such as ``encoder.layer.0.output.dense.editor.scaling`` and ``...bias``: float32, shape
            (width,).

        Raises:
            UsageError: No record says what the family's blocks are called, or the backbone is edited already.
        """
        require_unedited(backbone)
        chosen = [*inside_blocks(backbone, linears(backbone)), *norms(backbone)]
        freeze(backbone)
        for site in chosen:
            editor = RepresentationEditor(site.width)
            for vector in editor.parameters():  # they hold the identity
                vector.data += self.init_std * torch.randn_like(vector)
            attach(backbone, site, editor)
        return trainable(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Merge every scale and shift into the linear or LayerNorm before it, and detach (paper, equation 4).

        Raises:
            UsageError: The backbone has RMSNorms (T5, Llama), which cannot hold a shift, or its weights are quantized;
                nothing was changed then.
        """
        fold_editors(backbone)
