"""Families that read text: one record each."""

from red_lightning.families.record import Architecture, Within

BERT_BLOCK = r"encoder\.layer\.(?P<layer>\d+)"
BERT_SITES = {
    "ffn": Within(r"output\.dense"),
    "attention": Within(r"attention\.output\.dense"),
    "query": Within(r"attention\.self\.query"),
    "key": Within(r"attention\.self\.key"),
    "value": Within(r"attention\.self\.value"),
    "residual": Within(r"output"),  # after the LayerNorm: post-norm blocks end there
}

ENCODERS = [
    Architecture("RoBERTa", ("roberta",), BERT_BLOCK, "first", BERT_SITES),
    Architecture("XLM-R", ("xlm-roberta",), BERT_BLOCK, "first", BERT_SITES),
    Architecture("BERT", ("bert",), BERT_BLOCK, "pooler", BERT_SITES),
    Architecture("ELECTRA", ("electra",), BERT_BLOCK, "first", BERT_SITES),
    Architecture(
        "DeBERTa-v3",
        ("deberta-v2",),  # v3 is v2's code with other weights
        BERT_BLOCK,
        "first",
        {
            **BERT_SITES,
            "query": Within(r"attention\.self\.query_proj"),
            "key": Within(r"attention\.self\.key_proj"),
            "value": Within(r"attention\.self\.value_proj"),
        },
        by_batch=r"(?:.*\.)?encoder\.(?:LayerNorm|.*\.(?:query|key)_proj)",  # they see the relative positions too
    ),
    Architecture(
        "DistilBERT",
        ("distilbert",),
        r"transformer\.layer\.(?P<layer>\d+)",
        "first",
        {
            "ffn": Within(r"ffn\.lin2"),
            "attention": Within(r"attention\.out_lin"),
            "query": Within(r"attention\.q_lin"),
            "key": Within(r"attention\.k_lin"),
            "value": Within(r"attention\.v_lin"),
            "residual": Within(r"output_layer_norm"),
        },
    ),
    # All layers of ALBERT share one block, so an edit is one pair of vectors that acts at every pass through it
    # (ALBERT-base: 2 x 768 numbers, not 12 times that) and folds exactly; the layer number is that of the hidden group.
    Architecture(
        "ALBERT",
        ("albert",),
        r"encoder\.albert_layer_groups\.(?P<layer>\d+)\.albert_layers\.\d+",
        "pooler",
        {
            "ffn": Within(r"ffn_output"),
            "attention": Within(r"attention\.dense"),
            "query": Within(r"attention\.query"),
            "key": Within(r"attention\.key"),
            "value": Within(r"attention\.value"),
            "residual": Within(r"full_layer_layer_norm"),
        },
    ),
    Architecture(
        "ModernBERT",
        ("modernbert",),
        r"layers\.(?P<layer>\d+)",
        "first",  # unless its config says "mean", as those of the published models do
        {
            "ffn": Within(r"mlp\.Wo"),
            "attention": Within(r"attn\.Wo"),
            "query": Within(r"attn\.Wqkv", 0, 3),
            "key": Within(r"attn\.Wqkv", 1, 3),
            "value": Within(r"attn\.Wqkv", 2, 3),
            "residual": Within(""),
        },
    ),
]
