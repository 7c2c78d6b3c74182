"""Decoders some of whose blocks keep a state in place of keys and values: one record each."""

from red_lightning.families.architecture import Architecture, Within
from red_lightning.families.decoder_sites import LLAMA_BLOCK, LLAMA_SITES, QWEN_NEXT_SITES, SUMMED
from red_lightning.families.logits_transforms import divided

HYBRIDS = [
    # The state of linear attention runs through a row, so packed texts would see each other.
    Architecture(
        "Qwen 3.5",
        ("qwen3_5_text",),
        LLAMA_BLOCK,
        "last",
        QWEN_NEXT_SITES,
        wider={"query": "*.self_attn.q_proj"},
        recurrent=True,
    ),
    # Those of Granite 4 without experts; some of their blocks have a state space in the place of attention.
    Architecture(
        "Granite 4",
        ("granitemoehybrid",),
        LLAMA_BLOCK,
        "last",
        {
            **LLAMA_SITES,
            "ffn": Within(r"shared_mlp\.output_linear"),
            "attention": Within(r"(?:self_attn\.o_proj|mamba\.out_proj)"),
        },
        logits=divided,
        recurrent=True,
        refuses=lambda config: SUMMED if config.num_local_experts else "",
    ),
    # Some blocks of LFM 2 have a short convolution in the place of attention.
    Architecture(
        "LFM 2",
        ("lfm2",),
        LLAMA_BLOCK,
        "last",
        {
            **LLAMA_SITES,
            "ffn": Within(r"feed_forward\.w2"),
            "attention": Within(r"(?:self_attn|conv)\.out_proj"),
        },
        recurrent=True,
    ),
]
