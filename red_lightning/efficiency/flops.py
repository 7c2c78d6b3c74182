"""Floating-point operations of a training step: two per weight and token, and those of attention.

Lightning's ``measure_flops`` counts the operations of one forward and backward pass; the tests compare with it. It is
not used in a run: it needs a second model on the meta device and a pass for each shape of batch, and counts attention
whole rather than causal, padding, logits that no label needs, and what gradient checkpointing repeats.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class StepFlops:
    """The floating-point operations of a training step of a decoder or an encoder.

    A token costs 2 operations per weight in the forward pass, 2 for the gradient of the weight's input and 2 for that
    of the weight itself, which a frozen weight does not need: ``4N`` with a frozen backbone, ``6N`` with a trained one,
    ``2N`` where nothing in the backbone trains. Attention costs ``4 * layers * width`` forward and twice that backward
    for each pair of a token and one that it attends to; frozen or not, its inputs need gradients. Recomputation
    (gradient checkpointing) is no useful work and is not counted; nor are norms, activations and edits, about 1%.

    Attributes:
        per_token: Operations per token in the blocks' weights.
        per_label: Operations per label in the output embedding, which is only needed there.
        per_pair: Operations per attended pair.
    """

    per_token: int
    per_label: int
    per_pair: int

    def of(self, tokens: float, labels: float, pairs: float) -> float:
        """The operations of a step with so many tokens, labels and attended pairs."""
        return self.per_token * tokens + self.per_label * labels + self.per_pair * pairs


def step_flops(backbone: Any) -> StepFlops | None:
    """Count the operations of a training step.

    Args:
        backbone: The model, whole or sharded: sizes are read from the layers, not from the weights.

    Returns:
        None for an encoder-decoder, whose tokens do not all meet the same weights.
    """
    config = backbone.config
    if config.is_encoder_decoder:
        return None
    gradients = any(parameter.requires_grad for parameter in backbone.parameters())
    head = backbone.get_output_embeddings() if hasattr(backbone, "get_output_embeddings") else None
    per_token = per_label = 0
    for module in backbone.modules():
        operations = _size(module) * ((4 if gradients else 2) + 2 * _trains(module))
        if module is head:
            per_label = operations
        else:
            per_token += operations
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or _head_width(config))
    return StepFlops(per_token, per_label, (12 if gradients else 4) * config.num_hidden_layers * width)


def _head_width(config: Any) -> int:
    return config.hidden_size // config.num_attention_heads


def _size(module: nn.Module) -> int:
    """The weights of a linear layer; 0 for anything else."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return int(module.nx * module.nf) if isinstance(module, Conv1D) else 0


def _trains(module: nn.Module) -> bool:
    weight: Any = getattr(module, "weight", None)
    return bool(getattr(weight, "requires_grad", False))
