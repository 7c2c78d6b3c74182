"""Mixture-of-experts decoders: one record each.

The site ``ffn`` is the output of the whole mixture, the sum of all experts. An edit costs as much as in a dense model
and sees every token. It does not merge into the weights, because no single linear computes that output. Layers with one
FFN in the same place are edited in the same way.
"""

from red_lightning.families.architecture import Architecture, Within
from red_lightning.families.decoder_sites import LLAMA_BLOCK, LLAMA_SITES, QWEN_NEXT_SITES
from red_lightning.families.logits_transforms import divided

MIXTURE_SITES = {**LLAMA_SITES, "ffn": Within("mlp")}
# The latent attention of DeepSeek makes keys and values of one small vector: only its output is as elsewhere.
LATENT_SITES = {site: MIXTURE_SITES[site] for site in ("ffn", "attention", "residual")}
LATENT_WIDER = {"query": "*.self_attn.q*proj", "key": "*.self_attn.kv_b_proj", "value": "*.self_attn.kv_b_proj"}

MIXTURES = [
    Architecture("Mixtral", ("mixtral",), LLAMA_BLOCK, "last", MIXTURE_SITES, packs=True),
    Architecture("Qwen MoE", ("qwen2_moe", "qwen3_moe"), LLAMA_BLOCK, "last", MIXTURE_SITES, packs=True),
    Architecture(
        "Qwen MoE with linear attention",
        ("qwen3_next", "qwen3_5_moe_text"),
        LLAMA_BLOCK,
        "last",
        {**QWEN_NEXT_SITES, "ffn": Within("mlp")},
        wider={"query": "*.self_attn.q_proj"},
        recurrent=True,
    ),
    Architecture("OLMoE", ("olmoe",), LLAMA_BLOCK, "last", MIXTURE_SITES, packs=True),
    # transformers builds its attention mask without the positions: packed texts would see each other.
    Architecture("GPT-OSS", ("gpt_oss",), LLAMA_BLOCK, "last", MIXTURE_SITES),
    Architecture(
        "Granite MoE",
        ("granitemoe",),
        LLAMA_BLOCK,
        "last",
        {**LLAMA_SITES, "ffn": Within("block_sparse_moe")},
        packs=True,
        logits=divided,
    ),
    # Chunks of attention, and the temperature of its scores, follow a token's place in the row and not its position.
    Architecture("Llama 4", ("llama4_text",), LLAMA_BLOCK, "last", {**LLAMA_SITES, "ffn": Within("feed_forward")}),
    Architecture("Phi-3.5 MoE", ("phimoe",), LLAMA_BLOCK, "last", MIXTURE_SITES, packs=True),
    Architecture("GLM MoE", ("glm4_moe",), LLAMA_BLOCK, "last", MIXTURE_SITES, packs=True),
    Architecture(
        "DeepSeek",
        ("deepseek_v2", "deepseek_v3"),
        LLAMA_BLOCK,
        "last",
        LATENT_SITES,
        packs=True,
        wider=LATENT_WIDER,
    ),
]
