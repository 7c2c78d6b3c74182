"""Encoder-decoders: one record each."""

from red_lightning.families.architecture import Architecture, Within, no_limit
from red_lightning.families.decoder_sites import OPT_SITES

_SELF = r"(?:Self|LocalSelf|TransientGlobalSelf)Attention"  # LongT5's encoder has one of the latter two
T5_BLOCK = r"(?:encoder|decoder)\.block\.(?P<layer>\d+)"
T5_SITES = {
    "ffn": Within(r"layer\.\d\.DenseReluDense\.wo"),  # the gated FFN of version 1.1 ends there, too
    "attention": Within(rf"layer\.\d\.(?:{_SELF}|EncDecAttention)\.o"),
    "query": Within(rf"layer\.\d\.{_SELF}\.q"),
    "key": Within(rf"layer\.\d\.{_SELF}\.k"),
    "value": Within(rf"layer\.\d\.{_SELF}\.v"),
    "residual": Within(""),
}
T5_WIDER = {site: f"*.EncDecAttention.{site[0]}" for site in ("query", "key", "value")}

BART_BLOCK = r"(?:encoder|decoder)\.layers\.(?P<layer>\d+)"
PRENORM_SITES = {**OPT_SITES, "attention": Within(r"(?:self_attn|encoder_attn)\.out_proj")}
BART_SITES = {**PRENORM_SITES, "residual": Within(r"final_layer_norm")}  # post-norm blocks end there
BART_WIDER = {site: f"*.encoder_attn.{site[0]}_proj" for site in ("query", "key", "value")}

ENCODER_DECODERS = [
    Architecture("T5", ("t5",), T5_BLOCK, None, T5_SITES, wider=T5_WIDER, positions=no_limit),  # and 1.1, FLAN-T5
    Architecture("mT5", ("mt5", "umt5"), T5_BLOCK, None, T5_SITES, wider=T5_WIDER, positions=no_limit),
    Architecture("LongT5", ("longt5",), T5_BLOCK, None, T5_SITES, wider=T5_WIDER, positions=no_limit),
    *(
        Architecture(name, types, BART_BLOCK, None, sites, wider=BART_WIDER, head_bias="final_logits_bias")
        for name, types, sites in (
            ("BART", ("bart", "plbart"), BART_SITES),
            ("mBART", ("mbart",), PRENORM_SITES),
            ("Marian", ("marian",), BART_SITES),
            ("Pegasus", ("pegasus",), PRENORM_SITES),
            ("Blenderbot", ("blenderbot",), PRENORM_SITES),
            ("Blenderbot Small", ("blenderbot-small",), BART_SITES),
        )
    ),
    Architecture("M2M-100", ("m2m_100",), BART_BLOCK, None, PRENORM_SITES, wider=BART_WIDER),  # and NLLB
]
