"""Families that generate text from left to right: one record each."""

from typing import Any

import torch
from torch import Tensor

from red_lightning.families.record import Architecture, Within

LLAMA_BLOCK = r"layers\.(?P<layer>\d+)"
LLAMA_SITES = {
    "ffn": Within(r"mlp\.down_proj"),
    "attention": Within(r"self_attn\.o_proj"),
    "query": Within(r"self_attn\.q_proj"),
    "key": Within(r"self_attn\.k_proj"),
    "value": Within(r"self_attn\.v_proj"),
    "residual": Within(""),
}
PHI_SITES = {**LLAMA_SITES, "ffn": Within(r"mlp\.fc2"), "attention": Within(r"self_attn\.dense")}
PHI3_SITES = {site: LLAMA_SITES[site] for site in ("ffn", "attention", "residual")}
OPT_SITES = {**LLAMA_SITES, "ffn": Within(r"fc2"), "attention": Within(r"self_attn\.out_proj")}
NEOX_SITES = {**PHI3_SITES, "ffn": Within(r"mlp\.dense_4h_to_h"), "attention": Within(r"attention\.dense")}


def _softcapped(config: Any, logits: Tensor) -> Tensor:
    cap = config.final_logit_softcapping
    return logits if cap is None else torch.tanh(logits / cap) * cap


DECODERS = [
    Architecture(
        "GPT-2",
        ("gpt2",),
        r"h\.(?P<layer>\d+)",
        "last",
        {
            "ffn": Within(r"mlp\.c_proj"),
            "attention": Within(r"attn\.c_proj"),
            "query": Within(r"attn\.c_attn", 0, 3),
            "key": Within(r"attn\.c_attn", 1, 3),
            "value": Within(r"attn\.c_attn", 2, 3),
            "residual": Within(""),
        },
        packs=True,
    ),
    Architecture("Llama", ("llama",), LLAMA_BLOCK, "last", LLAMA_SITES, packs=True),
    Architecture("Mistral", ("mistral",), LLAMA_BLOCK, "last", LLAMA_SITES, packs=True),
    Architecture("Qwen 2", ("qwen2",), LLAMA_BLOCK, "last", LLAMA_SITES, packs=True),  # and 2.5
    Architecture("Qwen 3", ("qwen3",), LLAMA_BLOCK, "last", LLAMA_SITES, packs=True),
    # Gemma 2 and 3 normalise the outputs of attention and FFN once more: those are edited before that norm.
    Architecture(
        "Gemma",
        ("gemma", "gemma2", "gemma3_text"),
        LLAMA_BLOCK,
        "last",
        LLAMA_SITES,
        packs=True,
        logits=_softcapped,
    ),
    Architecture("Phi", ("phi",), LLAMA_BLOCK, "last", PHI_SITES, packs=True),
    # Phi-3's fused qkv_proj has a wide query and a narrow key and value where heads share them (grouped-query
    # attention): equal thirds of it would be wrong, so it has no sites query, key and value.
    Architecture(
        "Phi-3",
        ("phi3",),
        LLAMA_BLOCK,
        "last",
        PHI3_SITES,
        packs=True,
        wider=dict.fromkeys(("query", "key", "value"), "*.qkv_proj"),
    ),
    # OPT builds its attention mask without the positions: packed texts would see each other.
    Architecture("OPT", ("opt",), rf"decoder\.{LLAMA_BLOCK}", "last", OPT_SITES),
    # GPT-NeoX's fused query_key_value goes head by head: no third of its columns is the query, so none is a site.
    Architecture(
        "GPT-NeoX",
        ("gpt_neox",),
        LLAMA_BLOCK,
        "last",
        NEOX_SITES,
        packs=True,
        wider=dict.fromkeys(("query", "key", "value"), "*.query_key_value"),
    ),
]
