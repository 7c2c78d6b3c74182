"""Tiny random decoders over the configurations that change their logits, by names such as ``falcon-alibi``."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.backbones_zoo import VOCABULARY

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_MPT = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_FALCON = {**_SMALL, "ffn_hidden_size": 48}
_MIXTURE = {**_SMALL, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    **_SMALL,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 3,
    "head_dim": 8,
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo": ("olmo", {**_SMALL, "clip_qkv": 0.5}),
    "olmo2": ("olmo2", _SMALL),
    "olmo2-biases": ("olmo2", {**_SMALL, "attention_bias": True, "tie_word_embeddings": True}),
    "olmo3": ("olmo3", {**_SMALL, **_WINDOWS}),
    "cohere": ("cohere", {**_SMALL, "logit_scale": 0.3}),
    "cohere-norms": ("cohere", {**_SMALL, "logit_scale": 2.0, "use_qk_norm": True, "attention_bias": True}),
    "cohere2": ("cohere2", {**_SMALL, **_WINDOWS, "logit_scale": 0.25}),
    "granite": (
        "granite",
        {
            **_SMALL,
            "logits_scaling": 3.0,
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.2,
        },
    ),
    "granite-biases": ("granite", {**_SMALL, "logits_scaling": 0.5, "attention_bias": True, "mlp_bias": True}),
    "granitemoe": (
        "granitemoe",
        {
            **_SMALL,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "logits_scaling": 3.0,
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.4,
        },
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **_SMALL,
            "num_local_experts": 0,
            "shared_intermediate_size": 48,
            "logits_scaling": 3.0,
            "residual_multiplier": 0.4,
            "layer_types": ["attention", "attention"],
            "position_embedding_type": "rope",
            "mamba_n_heads": 8,
        },
    ),
    "granitemoehybrid-states": (
        "granitemoehybrid",
        {
            **_SMALL,
            "num_local_experts": 0,
            "shared_intermediate_size": 48,
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_state": 8,
        },
    ),
    "smollm3": ("smollm3", {**_SMALL, "no_rope_layers": [1, 0]}),
    "smollm3-biases": ("smollm3", {**_SMALL, "mlp_bias": True, "attention_bias": True, "tie_word_embeddings": True}),
    "starcoder2": ("starcoder2", {**_SMALL, "sliding_window": 8}),
    "starcoder2-bare": ("starcoder2", {**_SMALL, "use_bias": False, "sliding_window": None}),
    "gpt_bigcode": ("gpt_bigcode", {**_GPT, "n_inner": 48}),
    "gpt_bigcode-heads": ("gpt_bigcode", {**_GPT, "n_inner": 48, "multi_query": False}),
    "falcon": ("falcon", _FALCON),
    "falcon-new": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon-one-norm": (
        "falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon-alibi": ("falcon", {**_FALCON, "alibi": True, "bias": True, "parallel_attn": False}),
    "falcon-heads": ("falcon", {**_FALCON, "alibi": True, "multi_query": False, "tie_word_embeddings": False}),
    "bloom": ("bloom", {**_SMALL, "n_layer": 2, "n_head": 4}),
    "bloom-post": ("bloom", {**_SMALL, "n_layer": 2, "n_head": 4, "apply_residual_connection_post_layernorm": True}),
    "mpt": ("mpt", _MPT),
    "mpt-clipped": ("mpt", {**_MPT, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.2}}),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "gptj-tied": ("gptj", {**_GPT, "rotary_dim": 8, "n_inner": 48, "tie_word_embeddings": True}),
    "gpt_neo": (
        "gpt_neo",
        {
            **_SMALL,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 8,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "codegen": ("codegen", {**_GPT, "rotary_dim": 4}),
    "phi4": ("phi3", {**_SMALL, "partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "phimoe": ("phimoe", {**_SMALL, "num_local_experts": 4, "lm_head_bias": True, "attention_bias": True}),
    "mixtral": ("mixtral", {**_SMALL, "num_local_experts": 4, "sliding_window": 8}),
    "qwen2_moe": (
        "qwen2_moe",
        {**_MIXTURE, "shared_expert_intermediate_size": 24, "mlp_only_layers": [0], "decoder_sparse_step": 1},
    ),
    "qwen3_moe": ("qwen3_moe", {**_MIXTURE, "head_dim": 16, "norm_topk_prob": True}),
    "qwen3_moe-dense": ("qwen3_moe", {**_MIXTURE, "head_dim": 8, "mlp_only_layers": [1], "attention_bias": True}),
    "olmoe": ("olmoe", {**_MIXTURE, "clip_qkv": 0.5}),
    "llama4": (
        "llama4_text",
        {
            **_SMALL,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "head_dim": 8,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 8,
            "no_rope_layers": [1, 0],
            "attn_temperature_tuning": True,
            "floor_scale": 4,
        },
    ),
    "gemma3n": (
        "gemma3n_text",
        {
            **_SMALL,
            **_WINDOWS,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "head_dim": 8,
            "intermediate_size": [48] * 4,
            "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "num_kv_shared_layers": 2,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma4": (
        "gemma4_text",
        {
            **_SMALL,
            **_WINDOWS,
            "head_dim": 8,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma4-shared": (
        "gemma4_text",
        {
            **_SMALL,
            "num_hidden_layers": 4,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "head_dim": 8,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
    ),
    "gemma2-capped": (
        "gemma2",
        {**_SMALL, **_WINDOWS, "head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0},
    ),
    "vaultgemma": ("vaultgemma", {**_SMALL, **_WINDOWS, "head_dim": 8, "final_logit_softcapping": 2.0}),
    "qwen3_5": ("qwen3_5_text", {**_SMALL, **_LINEAR, "layer_types": ["linear_attention", "full_attention"]}),
    "qwen3_next": (
        "qwen3_next",
        {
            **_MIXTURE,
            **_LINEAR,
            "shared_expert_intermediate_size": 24,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "gpt_oss": ("gpt_oss", {**_SMALL, **_WINDOWS, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "glm": ("glm", {**_SMALL, "head_dim": 8}),
    "glm4": ("glm4", {**_SMALL, "head_dim": 8, "attention_bias": True}),
    "glm4_moe": ("glm4_moe", {**_LATENT, "num_key_value_heads": 2, "head_dim": 8, "use_qk_norm": True}),
    "deepseek_v2": ("deepseek_v2", {**_LATENT, "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", _LATENT),
    "ministral": ("ministral", {**_SMALL, **_WINDOWS, "head_dim": 8}),
    "ministral3": ("ministral3", {**_SMALL, "head_dim": 8}),
    "stablelm": (
        "stablelm",
        {**_SMALL, "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
    ),
    "nemotron": ("nemotron", _SMALL),
    "exaone4": ("exaone4", {**_SMALL, **_WINDOWS}),
    "seed_oss": ("seed_oss", {**_SMALL, "head_dim": 8}),
    "helium": ("helium", {**_SMALL, "head_dim": 8}),
    "arcee": ("arcee", _SMALL),
    "ernie4_5": ("ernie4_5", {**_SMALL, "use_bias": True}),
    "hunyuan": ("hunyuan_v1_dense", {**_SMALL, "head_dim": 8}),
    "nanochat": ("nanochat", {**_SMALL, "final_logit_softcapping": 2.0}),
    "lfm2": ("lfm2", {**_SMALL, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "gpt_neox-serial": ("gpt_neox", {**_SMALL, "use_parallel_residual": False, "tie_word_embeddings": True}),
}


def build_variant(name: str) -> nn.Module:
    """A random model in evaluation mode, whose norms and biases are random too."""
    model_type, options = VARIANTS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **options)
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)  # the outputs of a tiny model are nearly constant otherwise
    return model.eval()
