"""Blocks, sites and refusals that several families of decoders share."""

from red_lightning.families.architecture import Within

LLAMA_BLOCK = r"layers\.(?P<layer>\d+)"
GPT_BLOCK = r"h\.(?P<layer>\d+)"
LLAMA_SITES = {
    "ffn": Within(r"mlp\.down_proj"),
    "attention": Within(r"self_attn\.o_proj"),
    "query": Within(r"self_attn\.q_proj"),
    "key": Within(r"self_attn\.k_proj"),
    "value": Within(r"self_attn\.v_proj"),
    "residual": Within(""),
}
PHI_SITES = {**LLAMA_SITES, "ffn": Within(r"mlp\.fc2"), "attention": Within(r"self_attn\.dense")}
FUSED_SITES = {site: LLAMA_SITES[site] for site in ("ffn", "attention", "residual")}
OPT_SITES = {**LLAMA_SITES, "ffn": Within(r"fc2"), "attention": Within(r"self_attn\.out_proj")}
NEOX_SITES = {**FUSED_SITES, "ffn": Within(r"mlp\.dense_4h_to_h"), "attention": Within(r"attention\.dense")}
BLOOM_SITES = {**NEOX_SITES, "attention": Within(r"self_attention\.dense")}
CODEGEN_SITES = {**FUSED_SITES, "ffn": Within(r"mlp\.fc_out"), "attention": Within(r"attn\.out_proj")}
# Qwen 3.5 mixes linear and full attention. Its q_proj holds the gate of the output too, so the query is no site.
QWEN_NEXT_SITES = {
    **FUSED_SITES,
    "attention": Within(r"(?:self_attn\.o_proj|linear_attn\.out_proj)"),
    "key": LLAMA_SITES["key"],
    "value": LLAMA_SITES["value"],
}

SUMMED = "it sums up a mixture of experts and another FFN outside of any module, so no module gives their sum"
"""Why a model with such blocks is refused, for :attr:`Architecture.refuses`."""
