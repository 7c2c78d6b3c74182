"""Train the last blocks only (``FT_top2`` in the tables of arXiv 2402.15179)."""

from torch import nn

from red_lightning.editing.surgery import freeze, trainable
from red_lightning.errors import UsageError, require_range
from red_lightning.families import architecture_of
from red_lightning.methods.full import FullFineTuning


class LastBlocks(FullFineTuning):
    """Train all weights of the last blocks (``FT_top2`` in the paper's tables).

    Modules after the blocks, such as the last norm and the language-model head, are not trained.

    Args:
        blocks: Number of blocks. In an encoder-decoder they are the decoder's last. ALBERT has one block, used in each
            layer.
    """

    def __init__(self, blocks: int = 2) -> None:
        require_range("model.method.blocks", blocks, 1)
        self.blocks = blocks

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Make the parameters of the last blocks trainable.

        Args:
            backbone: A Hugging Face model.

        Returns:
            Those parameters, by name.

        Raises:
            UsageError: There are fewer blocks, their weights are not float32, or no record says what the family's
                blocks are called.
        """
        every = _last_stack(backbone)
        if self.blocks > len(every):
            raise UsageError(f"model.method.blocks is {self.blocks}, but the backbone has {len(every)} to choose from")
        chosen = every[-self.blocks :]
        self.require_float32(parameter for block in chosen for parameter in block.parameters())
        freeze(backbone)
        for block in chosen:
            block.requires_grad_(True)
        return trainable(backbone)


def _last_stack(backbone: nn.Module) -> list[nn.Module]:
    """Return the backbone's blocks in order; in an encoder-decoder those of the decoder."""
    pattern = architecture_of(getattr(backbone, "config", None)).block_pattern()
    stacks: dict[str, list[nn.Module]] = {}
    for name, module in backbone.named_modules():
        if match := pattern.fullmatch(name):
            stacks.setdefault(name[: match.start("layer")], []).append(module)
    return list(stacks.values())[-1]
