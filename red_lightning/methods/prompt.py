"""Prompt tuning: learned embeddings before the text, ``[P; X]`` (Lester et al., arXiv 2104.08691, section 2)."""

from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from red_lightning.backbones.sharding import is_divided, whole
from red_lightning.editing.learned import Learned
from red_lightning.editing.surgery import freeze, trainable
from red_lightning.editing.virtual_tokens import attach_embeddings, detach, stack_of
from red_lightning.errors import UsageError, require_range
from red_lightning.methods.method import Method

COMMON = 5000
"""Number of tokens at the start of the vocabulary from which initial embeddings are drawn (section 3.2)."""


class PromptEmbeddings(Learned):
    """Learned embeddings of virtual tokens.

    Args:
        embeddings: Initial values, shape (length, columns of the input embeddings).

    Attributes:
        embeddings: float32, of that shape.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(embeddings.float())

    def forward(self) -> torch.Tensor:
        """Return the embeddings of one text: float32, shape (1, length, columns)."""
        return self.embeddings[None]


class PromptTuning(Method):
    """Prompt tuning: learned embeddings of virtual tokens before the input embeddings of each text.

    In an encoder-decoder they precede the input of the encoder. They occupy positions. The output changes from the
    start.

    Args:
        length: Number of virtual tokens (paper: 100).
        init: Initial values: ``vocabulary`` is the embeddings of random tokens among the first 5,000 of the vocabulary,
            usually the most frequent (paper, section 3.2); ``random`` is uniform between -0.5 and 0.5 (same section).
    """

    packs = False
    sizes = ("length",)

    def __init__(self, length: int = 100, init: Literal["vocabulary", "random"] = "vocabulary") -> None:
        require_range("model.method.length", length, 1)
        if init not in ("vocabulary", "random"):
            raise UsageError(f"unknown init '{init}': choose vocabulary or random")
        self.length, self.init = length, init

    @property
    def virtual_tokens(self) -> int:
        """Number of the backbone's positions that the method occupies."""
        return self.length

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and put the virtual tokens before each text.

        Args:
            backbone: A Hugging Face model.

        Returns:
            ``virtual_tokens.embeddings`` behind the name of the module that reads the text: float32, shape (length,
            columns of the input embeddings).

        Raises:
            UsageError: There are virtual tokens already.
        """
        prompt = PromptEmbeddings(self._first_values(stack_of(backbone).get_input_embeddings()))
        attach_embeddings(backbone, prompt)
        freeze(backbone)
        prompt.requires_grad_(True)
        return trainable(backbone)

    def detach(self, backbone: nn.Module) -> None:
        """Remove the virtual tokens. The backbone is bitwise identical to the one before."""
        detach(backbone)

    @torch.no_grad()
    def _first_values(self, embedding: Any) -> torch.Tensor:
        """Return the initial embeddings, shape (length, columns)."""
        rows, width = embedding.weight.shape
        if self.init == "random":
            return torch.empty(self.length, width, device="cpu", dtype=torch.float32).uniform_(-0.5, 0.5)
        drawn = torch.randint(min(rows, COMMON), (self.length,), device="cpu")
        if is_divided(embedding.weight):
            return functional_call(embedding, {"weight": whole(embedding.weight)}, (drawn,))
        return embedding(drawn.to(embedding.weight.device))
