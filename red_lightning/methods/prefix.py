"""Prefix tuning: ``softmax(q [P_k; K]^T) [P_v; V]`` in every layer (Li and Liang, arXiv 2101.00190, section 4)."""

from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.editing.learned import Learned
from red_lightning.editing.surgery import freeze, trainable
from red_lightning.editing.virtual_tokens import attach_cache, cache_shape, detach
from red_lightning.errors import require_range
from red_lightning.families import Architecture
from red_lightning.methods.method import Method


class Prefix(Learned):
    """Learned keys and values, drawn from N(0, 1) at the start (as in peft).

    Args:
        shape: Layers, heads, virtual tokens, columns of a head.

    Attributes:
        keys: float32, of that shape.
        values: float32, of that shape.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(shape, device="cpu", dtype=torch.float32))
        self.values = nn.Parameter(torch.randn(shape, device="cpu", dtype=torch.float32))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values of one text: each float32, shape (layers, 1, heads, virtual tokens, columns)."""
        return self.keys[:, None], self.values[:, None]


class ProjectedPrefix(Learned):
    """Keys and values that a small network computes from learned embeddings (paper, equation 3).

    Args:
        shape: Layers, heads, virtual tokens, columns of a head.
        width: Columns of the embeddings.
        hidden: Columns of the network's hidden layer.

    Attributes:
        embeddings: float32, shape (virtual tokens, width).
        inner: float32 linear, ``width`` to ``hidden``.
        outer: float32 linear, ``hidden`` to all keys and values of a virtual token.
    """

    def __init__(self, shape: tuple[int, int, int, int], width: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        layers, heads, length, columns = shape
        self.embeddings = nn.Parameter(torch.randn(length, width, device="cpu", dtype=torch.float32))
        self.inner = nn.Linear(width, hidden, device="cpu", dtype=torch.float32)
        self.outer = nn.Linear(hidden, 2 * layers * heads * columns, device="cpu", dtype=torch.float32)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values of one text: each float32, shape (layers, 1, heads, virtual tokens, columns)."""
        layers, heads, length, columns = self.shape
        made = self.outer(torch.tanh(self.inner(self.embeddings)))
        keys, values = made.view(length, 2, layers, heads, columns).permute(1, 2, 3, 0, 4)
        return keys[:, None], values[:, None]


class PrefixTuning(Method):
    """Prefix tuning: learned keys and values of virtual tokens in every attention layer.

    They precede the keys and values of each text and occupy positions. In an encoder-decoder they precede those of the
    decoder, as in peft. The output changes from the start.

    Args:
        length: Number of virtual tokens.
        projection: Hidden width of a network that computes the keys and values (paper, equation 3) and is saved with
            them. Training is steadier, with far more parameters. null learns the keys and values directly.
    """

    packs = False
    sizes = ("length", "projection")

    def __init__(self, length: int = 16, projection: int | None = None) -> None:
        require_range("model.method.length", length, 1)
        if projection is not None:
            require_range("model.method.projection", projection, 1)
        self.length, self.projection = length, projection

    @property
    def virtual_tokens(self) -> int:
        """Number of the backbone's positions that the method occupies."""
        return self.length

    @classmethod
    def limit(cls, record: Architecture | None, has_head: bool) -> str:
        """Refuse families whose attention takes no keys and values from outside."""
        if record and record.no_prefix:
            return (
                "puts learned keys and values into the cache that attention reads, but transformers' "
                f"{record.name} {record.no_prefix}; choose PromptTuning, whose virtual tokens are input embeddings"
            )
        return super().limit(record, has_head)

    def apply(self, backbone: Any) -> dict[str, nn.Parameter]:
        """Freeze the backbone and put the prefix before each text.

        Args:
            backbone: A Hugging Face model whose attention reads a cache of keys and values.

        Returns:
            ``virtual_tokens.keys`` and ``virtual_tokens.values`` behind the name of the module that runs the blocks:
            each float32, shape (layers, heads, length, columns of a head). Heads that queries share count once.

        Raises:
            UsageError: The model has no such cache, or gradient checkpointing would drop it.
        """
        layers, heads, columns = cache_shape(backbone.config)
        shape = (layers, heads, self.length, columns)
        width = backbone.config.hidden_size
        prefix = Prefix(shape) if self.projection is None else ProjectedPrefix(shape, width, self.projection)
        attach_cache(backbone, prefix)
        freeze(backbone)
        prefix.requires_grad_(True)
        return trainable(backbone)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the prefix. The backbone is bitwise identical to the one before."""
        detach(backbone)
