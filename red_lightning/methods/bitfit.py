"""BitFit: train the biases only, ``h2 = h1 + d`` with ``d = b - b0`` (arXiv 2106.10199, section 3).

A trained bias ``b`` is the pretrained ``b0`` plus a learned difference ``d``. Only ``d`` is trainable: float32, added
after the module that adds ``b0``. It has the gradients of ``b``, and a 16-bit ``b0`` does not round small steps away.
The backbone stays bitwise identical.
"""

from torch import nn

from red_lightning.editing.sites import Site, linears, norms
from red_lightning.editing.surgery import attach, freeze, require_unedited, trainable
from red_lightning.errors import UsageError
from red_lightning.methods.method import Method
from red_lightning.methods.red import RepresentationEditor, fold_editors


class BitFit(Method):
    """Train all biases of the backbone's linears and norms.

    Weight decay pulls a bias towards its pretrained value, not towards 0.

    Args:
        add_biases: Add a bias that starts at zero to each linear and norm without one, including the language-model
            head. T5, Llama, Mistral and Gemma have no biases. T5-base gets 282,496 parameters: 202,752 in the linears
            of the blocks, 47,616 (62 x 768) in the norms and 32,128 in the head.
    """

    combines = "affine"

    def __init__(self, add_biases: bool = False) -> None:
        self.add_biases = add_biases

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach a learned difference to each bias. The output is bitwise unchanged at first.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The differences, by names such as ``encoder.layer.0.output.dense.editor.bias``: float32, shape (width,).

        Raises:
            UsageError: The backbone has no biases and may not be given any, or it is edited already.
        """
        require_unedited(backbone)
        every = [*linears(backbone), *norms(backbone)]
        chosen = every if self.add_biases else [site for site in every if _has_bias(backbone, site)]
        if not chosen:
            raise UsageError(
                "this backbone has no biases for BitFit to train; model.method.add_biases: true gives each linear and "
                "norm one that starts at zero"
            )
        freeze(backbone)
        for site in chosen:
            attach(backbone, site, RepresentationEditor(site.width, scaling=False))
        return trainable(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Add the learned differences to the biases, and detach.

        A linear that had no bias gets one, in memory: ``save_pretrained`` cannot carry it.

        Raises:
            UsageError: A bias was added to an RMSNorm, which cannot hold one, or to a quantized linear; nothing was
                changed then.
        """
        fold_editors(backbone)


def _has_bias(backbone: nn.Module, site: Site) -> bool:
    return getattr(backbone.get_submodule(site.module), "bias", None) is not None
