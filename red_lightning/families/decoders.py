"""Decoders with one FFN per block: one record each."""

from typing import Any

from red_lightning.families.architecture import GEGLU, SWIGLU, Architecture, FusedFFN, Within, no_limit
from red_lightning.families.as_llama import AS_LLAMA, AS_SPLIT_LLAMA
from red_lightning.families.decoder_sites import (
    BLOOM_SITES,
    CODEGEN_SITES,
    FUSED_SITES,
    GPT_BLOCK,
    LLAMA_BLOCK,
    LLAMA_SITES,
    NEOX_SITES,
    OPT_SITES,
    PHI_SITES,
    SUMMED,
)
from red_lightning.families.logits_transforms import divided, scaled, softcapped


def _wider(fused: str) -> dict[str, str]:
    return dict.fromkeys(("query", "key", "value"), fused)


def _attention(within: str) -> dict[str, Within]:
    """Return the sites of an attention with one linear each for query, key, value and output."""
    names = {"attention": "out_proj", "query": "q_proj", "key": "k_proj", "value": "v_proj"}
    return {site: Within(rf"{within}\.{name}") for site, name in names.items()}


def llama_like(name: str, model_types: tuple[str, ...], **facts: Any) -> Architecture:
    """Return the record of a family with Llama's blocks and sites, which packs."""
    return Architecture(name, model_types, LLAMA_BLOCK, "last", LLAMA_SITES, packs=True, **facts)


DECODERS = [
    Architecture(
        "GPT-2",
        ("gpt2",),
        GPT_BLOCK,
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
        llama_cpp={"gpt2": False},
        older_fields={"n_ctx": "n_positions"},
        released_task="DataToText",
    ),
    llama_like("Llama", ("llama",), fused_ffns={"llama": SWIGLU}, llama_cpp={"llama": True}),
    llama_like(
        "Mistral",
        ("mistral", "ministral", "ministral3"),
        fused_ffns={"mistral": SWIGLU},
        llama_cpp={"mistral": False},
        equivalents={"mistral": AS_LLAMA},
    ),
    llama_like(
        "Qwen 2",
        ("qwen2",),
        fused_ffns={"qwen2": SWIGLU},
        llama_cpp={"qwen2": False},
        equivalents={"qwen2": AS_LLAMA},
    ),  # and 2.5
    llama_like("Qwen 3", ("qwen3",), fused_ffns={"qwen3": SWIGLU}, llama_cpp={"qwen3": False}),
    # Gemma 2 and 3 normalise the outputs of attention and FFN once more: those are edited before that norm.
    llama_like(
        "Gemma",
        ("gemma", "gemma2", "gemma3_text", "vaultgemma"),
        logits=softcapped,
        fused_ffns=dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GEGLU),
        llama_cpp={"gemma": False},
    ),
    # The last layers of Gemma 3n and 4 read the keys and values of earlier ones: a site in theirs would change nothing.
    # A block of Gemma 3n returns several versions of the hidden state, so its output is no site.
    Architecture(
        "Gemma 3n",
        ("gemma3n_text",),
        LLAMA_BLOCK,
        "last",
        {site: LLAMA_SITES[site] for site in ("ffn", "attention", "query")},
        packs=True,
        logits=softcapped,
    ),
    Architecture(
        "Gemma 4",
        ("gemma4_text",),
        LLAMA_BLOCK,
        "last",
        {**FUSED_SITES, "query": LLAMA_SITES["query"]},
        packs=True,
        logits=softcapped,
        refuses=lambda config: SUMMED if config.enable_moe_block else "",
    ),
    Architecture("Phi", ("phi",), LLAMA_BLOCK, "last", PHI_SITES, packs=True),
    # Phi-3's fused qkv_proj has a wide query and a narrow key and value where heads share them (grouped-query
    # attention): equal thirds of it would be wrong, so it has no sites query, key and value. Phi-4 is a Phi-3.
    Architecture(
        "Phi-3",
        ("phi3",),
        LLAMA_BLOCK,
        "last",
        FUSED_SITES,
        packs=True,
        wider=_wider("*.qkv_proj"),
        fused_ffns={"phi3": FusedFFN("LigerPhi3SwiGLUMLP", "silu")},
        equivalents={"phi3": AS_SPLIT_LLAMA},
        llama_cpp={"phi3": False},
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
        wider=_wider("*.query_key_value"),
        llama_cpp={"gpt_neox": False},
        older_tensors={"lm_head.weight": "embed_out.weight"},
    ),
    # transformers 5.0 builds the attention masks of GPT-J, CodeGen, Falcon, StableLM and Nemotron without the
    # positions, so packed texts would see each other; 5.24 no longer does. A local layer of GPT-Neo counts places in
    # a row.
    Architecture(
        "GPT-J",
        ("gptj",),
        GPT_BLOCK,
        "last",
        {"ffn": Within(r"mlp\.fc_out"), **_attention("attn"), "residual": Within("")},
    ),
    Architecture(
        "GPT-Neo",
        ("gpt_neo",),
        GPT_BLOCK,
        "last",
        {"ffn": Within(r"mlp\.c_proj"), **_attention(r"attn\.attention"), "residual": Within("")},
    ),
    Architecture("CodeGen", ("codegen",), GPT_BLOCK, "last", CODEGEN_SITES, wider=_wider("*.qkv_proj")),
    llama_like("OLMo", ("olmo", "olmo2", "olmo3")),
    llama_like("Cohere", ("cohere", "cohere2"), logits=scaled),
    llama_like("Granite", ("granite",), logits=divided),
    llama_like("SmolLM 3", ("smollm3",)),
    Architecture(
        "StarCoder 2", ("starcoder2",), LLAMA_BLOCK, "last", {**LLAMA_SITES, "ffn": Within(r"mlp\.c_proj")}, packs=True
    ),
    # The first StarCoder's c_attn has a wide query beside one narrow key and value.
    Architecture(
        "StarCoder",
        ("gpt_bigcode",),
        GPT_BLOCK,
        "last",
        {"ffn": Within(r"mlp\.c_proj"), "attention": Within(r"attn\.c_proj"), "residual": Within("")},
        packs=True,
        wider=_wider("*.c_attn"),
    ),
    # The query_key_value of Falcon and BLOOM goes head by head, or group by group.
    Architecture(
        "Falcon",
        ("falcon",),
        GPT_BLOCK,
        "last",
        BLOOM_SITES,
        wider=_wider("*.query_key_value"),
        positions=lambda config: None if config.alibi else config.max_position_embeddings,
    ),
    # A token's place decides its bias in BLOOM and MPT, not its position: packed texts would be read otherwise.
    Architecture(
        "BLOOM",
        ("bloom",),
        GPT_BLOCK,
        "last",
        BLOOM_SITES,
        wider=_wider("*.query_key_value"),
        positions=no_limit,
        refuses=lambda config: (
            "with slow_but_exact it does not call the linears that are edited; set slow_but_exact to false"
            if config.slow_but_exact and config.pretraining_tp > 1
            else ""
        ),
    ),
    Architecture(
        "MPT",
        ("mpt",),
        r"blocks\.(?P<layer>\d+)",
        "last",
        {
            "ffn": Within(r"ffn\.down_proj"),
            "attention": Within(r"attn\.out_proj"),
            "query": Within(r"attn\.Wqkv", 0, 3),
            "key": Within(r"attn\.Wqkv", 1, 3),
            "value": Within(r"attn\.Wqkv", 2, 3),
            "residual": Within(""),
        },
        positions=lambda config: config.max_seq_len,  # the length of its table of biases
    ),
    llama_like("GLM", ("glm", "glm4")),
    Architecture("StableLM", ("stablelm",), LLAMA_BLOCK, "last", LLAMA_SITES),
    Architecture("Nemotron", ("nemotron",), LLAMA_BLOCK, "last", LLAMA_SITES),
    llama_like("EXAONE 4", ("exaone4",)),
    llama_like("Seed-OSS", ("seed_oss",)),
    llama_like("Helium", ("helium",)),
    llama_like("Arcee", ("arcee",)),
    llama_like("ERNIE 4.5", ("ernie4_5",)),
    llama_like("Hunyuan", ("hunyuan_v1_dense",)),
    Architecture(
        "nanochat",
        ("nanochat",),
        LLAMA_BLOCK,
        "last",
        {**LLAMA_SITES, "ffn": Within(r"mlp\.fc2")},
        packs=True,
        logits=softcapped,
    ),
]
