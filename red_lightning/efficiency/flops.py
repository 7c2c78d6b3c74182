"""Count the floating-point operations of a training step from the sizes of the model's layers.

Lightning's ``measure_flops`` runs a forward and a backward pass under torch's ``FlopCounterMode``. It does not replace
this module: a share of the hardware's peak needs the operations that training needs, for each batch of another length.
Measured on models of 6 layers of width 256 and 4 rows of 128 tokens (Lightning 2.6.6, torch 2.13, transformers 5.24):

- It agrees with this module to 0.1% where everything trains: GPT-2, Llama, a RoBERTa classifier. With RED, it omits
  the gradients of frozen weights, as this module does, and the backward pass below the lowest edit, which this module
  counts: 6.7% too much for the decoders, 9.4% for the classifier, and less in proportion for more layers.
- It counts attention whole (causal attention needs 3% less), padding, and what gradient checkpointing repeats (+43%).
  It misses fused attention on a CPU (-8%), and knows no Triton kernels.
- It needs 2 to 8 s on a CPU for each shape of batch. On the meta device it needs a second model, and transformers
  refuses an attention mask there: "Tensor.item() cannot be called on meta tensors".
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class StepFlops:
    """The floating-point operations of a training step of a decoder or an encoder.

    A token needs 2 operations per weight forward, 2 for the gradient of the layer's input and 2 for that of the weight,
    which a frozen weight does not need: ``4N`` with a frozen backbone, ``6N`` with a trained one, ``2N`` if nothing
    trains. Attention needs ``4 * layers * width`` forward and twice that backward for each pair of a token and a token
    that it attends to, frozen or not. Repeated work (gradient checkpointing), norms, activations, edits and the head of
    a classifier are not counted; all but the first are about 1%.

    Attributes:
        per_token: Operations per token in the weights of the blocks.
        per_label: Operations per label in the output embedding: other positions need no logits.
        per_pair: Operations per attended pair.
    """

    per_token: int
    per_label: int
    per_pair: int

    def of(self, tokens: float, labels: float, pairs: float) -> float:
        """Return the operations of a step with this many tokens, labels and attended pairs."""
        return self.per_token * tokens + self.per_label * labels + self.per_pair * pairs


def step_flops(backbone: Any) -> StepFlops | None:
    """Count the operations of a training step.

    Args:
        backbone: The model, whole or sharded: sizes are those of the layers, not of the weights in memory.

    Returns:
        The operations; None for an encoder-decoder, because its encoder and decoder see different tokens.
    """
    config = backbone.config
    if config.is_encoder_decoder:
        return None
    gradients = any(parameter.requires_grad for parameter in backbone.parameters())
    head = backbone.get_output_embeddings() if hasattr(backbone, "get_output_embeddings") else None
    per_weight = 4 if gradients else 2
    # a classifier's head is outside the base model: it sees one token of each row
    layers = [module for module in backbone.base_model.modules() if module is not head]
    per_token = sum(_size(module) * (per_weight + 2 * _trains(module)) for module in layers)
    per_label = _size(head) * (per_weight + 2 * _trains(head))
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or _head_width(config))
    return StepFlops(per_token, per_label, (12 if gradients else 4) * config.num_hidden_layers * width)


def _head_width(config: Any) -> int:
    return config.hidden_size // config.num_attention_heads


def _size(module: nn.Module | None) -> int:
    """Return the number of weights of a linear layer; 0 for another module."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return int(module.nx * module.nf) if isinstance(module, Conv1D) else 0


def _trains(module: nn.Module | None) -> bool:
    weight: Any = getattr(module, "weight", None)
    return bool(getattr(weight, "requires_grad", False))
