"""The classification head: pooling and projection."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from red_lightning.errors import UsageError, require_range
from red_lightning.families import Pooling, record_of


def pooling_of(config: Any) -> Pooling | None:
    """Which representation of a backbone stands for a text when a classifier is put on top.

    What the config itself says (``classifier_pooling``: ``cls`` or ``mean``, as ModernBERT has it) comes first, then
    ``last`` where it says ``is_decoder``, since no other token has seen the whole text, then the family's record. A
    family without a record that is known as nothing but a causal language model gets ``last``; any other ``first``.

    Args:
        config: The backbone's Hugging Face configuration.

    Returns:
        The representation; None for an encoder-decoder, which has no single one.
    """
    said = getattr(config, "classifier_pooling", None)
    if said in ("cls", "mean"):
        return "first" if said == "cls" else "mean"
    encoder_decoder = getattr(config, "is_encoder_decoder", False)
    if getattr(config, "is_decoder", False) and not encoder_decoder:
        return "last"
    if architecture := record_of(config):
        return architecture.pooling
    if encoder_decoder:
        return None
    model_type = getattr(config, "model_type", None)
    causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "last" if causal else "first"


@dataclass
class HeadOptions:
    """The classification head on top of the backbone. It is trained and saved with the method's parameters.

    Attributes:
        pooling: Representation of a text: that of the ``first`` token, the ``mean`` over its tokens, that of the
            ``last`` token, or the output of the pretrained ``pooler``. null uses the family's default.
        hidden: Add a dense layer with tanh before the projection, as in the paper's head for RoBERTa (authors' code).
            null adds it for ``first`` and ``mean``.
        dropout: Dropout probability before each layer of the head. null is 0.5 with a hidden layer (authors' code:
            twice), otherwise 0.1.
    """

    pooling: Pooling | None = None
    hidden: bool | None = None
    dropout: float | None = None

    def resolved(self, config: Any) -> "HeadOptions":
        """The options with nothing left open, for a backbone's configuration.

        Raises:
            UsageError: The dropout is no share.
        """
        pooling = self.pooling or pooling_of(config) or "first"
        hidden = pooling in ("first", "mean") if self.hidden is None else self.hidden
        dropout = self.dropout if self.dropout is not None else 0.5 if hidden else 0.1
        require_range("model.head.dropout", dropout, 0, 1)
        return HeadOptions(pooling, hidden, dropout)


class ClassificationHead(nn.Module):
    """Dropout, dense, tanh, dropout, projection (authors' ``ClassifierHead``). Without ``hidden``: dropout, projection.

    Args:
        width: Columns of the backbone's hidden states.
        outputs: Number of classes, or 1 for regression.
        hidden: Whether there is a dense layer.
        dropout: Dropout probability before each layer.

    Attributes:
        dense: float32 linear, ``width`` to ``width``, or None.
        out_proj: float32 linear, ``width`` to ``outputs``.
    """

    def __init__(self, width: int, outputs: int, hidden: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width) if hidden else None
        self.out_proj = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Tell the classes apart.

        Args:
            pooled: Floating point, shape (rows, width).

        Returns:
            float32, shape (rows, outputs).
        """
        hidden = pooled.to(self.out_proj.weight.dtype)
        if self.dense is not None:
            hidden = torch.tanh(self.dense(self.dropout(hidden)))
        return self.out_proj(self.dropout(hidden)).float()


def pool(output: Any, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """The representation that stands for each text.

    Args:
        output: What the backbone returned: ``last_hidden_state`` of shape (rows, tokens, width), and for ``pooler``
            ``pooler_output`` of shape (rows, width).
        attention_mask: int64, shape (rows, tokens); 0 at padding, on either side.
        pooling: Which.

    Returns:
        Shape (rows, width); the hidden states' dtype.

    Raises:
        UsageError: The backbone has no pooler.
    """
    if pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise UsageError("the backbone has no pooler; choose model.head.pooling first, mean or last")
        return output.pooler_output
    hidden: Tensor = output.last_hidden_state
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    if pooling == "mean":
        mask = attention_mask[..., None].float()  # the sum may be too large for float16
        return ((hidden * mask).sum(1) / mask.sum(1)).to(hidden.dtype)
    if pooling == "last":
        return hidden[rows, (attention_mask * positions).argmax(1)]
    return hidden[rows, attention_mask.argmax(1)]
