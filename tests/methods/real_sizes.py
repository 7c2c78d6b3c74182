"""The paper's backbones at their real sizes, without weights."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, GPT2Config, RobertaConfig, T5Config

CONFIGS = {
    "roberta-base": RobertaConfig(max_position_embeddings=514, type_vocab_size=1),
    "roberta-large": RobertaConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
    ),
    "t5-base": T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12),
    "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
}


def on_meta(name: str, auto: Any = AutoModel) -> nn.Module:
    """The backbone on the meta device (RoBERTa without its pooler, as classifiers load it)."""
    options = {"add_pooling_layer": False} if name.startswith("roberta") else {}
    with torch.device("meta"):
        model = auto.from_config(CONFIGS[name], **options)
    model.tie_weights()  # transformers 5.0 leaves that out on the meta device
    return model
