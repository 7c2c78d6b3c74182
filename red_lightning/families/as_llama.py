"""Llama as the equivalent of other model types, for :attr:`Architecture.equivalents`.

Llama can have biases in its attention (``attention_bias``) and its FFN (``mlp_bias``). Mistral, Qwen 2 and Phi-3 differ
from it only in their biases, attention window and fused linears.
"""

from dataclasses import replace
from typing import Any

from red_lightning.families.architecture import Equivalent

LLAMA_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)


def _split(llama: Any) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return the linears of Llama that replace one for query, key and value, and one for gate and up."""
    columns, shared = (llama.head_dim * count for count in (llama.num_attention_heads, llama.num_key_value_heads))
    return {
        "qkv_proj": (("q_proj", columns), ("k_proj", shared), ("v_proj", shared)),
        "gate_up_proj": (("gate_proj", llama.intermediate_size), ("up_proj", llama.intermediate_size)),
    }


AS_LLAMA = Equivalent("Llama", "llama", LLAMA_FIELDS)
AS_SPLIT_LLAMA = replace(AS_LLAMA, parts=_split)
