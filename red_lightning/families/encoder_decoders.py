"""Families that read a source and generate a target: one record each."""

from red_lightning.families.record import Architecture, Within

ENCODER_DECODERS = [
    Architecture(
        "T5",
        ("t5",),
        r"(?:encoder|decoder)\.block\.(?P<layer>\d+)",
        None,
        {
            "ffn": Within(r"layer\.\d\.DenseReluDense\.wo"),
            "attention": Within(r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.o"),
            "query": Within(r"layer\.\d\.SelfAttention\.q"),
            "key": Within(r"layer\.\d\.SelfAttention\.k"),
            "value": Within(r"layer\.\d\.SelfAttention\.v"),
            "residual": Within(""),
        },
        wider={site: f"*.EncDecAttention.{site[0]}" for site in ("query", "key", "value")},
    ),
]
