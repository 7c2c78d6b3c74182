"""Encoders: one record each."""

from collections.abc import Mapping
from typing import Any

from red_lightning.families.architecture import (
    FIXED_MASK,
    READS_NO_CACHE,
    Architecture,
    Classifier,
    Within,
    after_padding,
)
from red_lightning.families.classifier_heads import (
    DEBERTA_CLASSIFIER,
    PROJECTION,
    ROBERTA_HEAD,
    XLM_CLASSIFIER,
    bert_heads,
)
from red_lightning.families.decoder_sites import LLAMA_BLOCK, LLAMA_SITES

BERT_BLOCK = r"encoder\.layer\.(?P<layer>\d+)"
BERT_SITES = {
    "ffn": Within(r"output\.dense"),
    "attention": Within(r"attention\.output\.dense"),
    "query": Within(r"attention\.self\.query"),
    "key": Within(r"attention\.self\.key"),
    "value": Within(r"attention\.self\.value"),
    "residual": Within(r"output"),  # after the LayerNorm: post-norm blocks end there
}
PRENORM_SITES = {**BERT_SITES, "residual": Within("")}  # no norm lies between the sum and the next block
POSTNORM_SITES = {**LLAMA_SITES, "residual": Within(r"post_mlp_layernorm")}


def _of_deberta(config: Any) -> int | None:
    """DeBERTa adds absolute positions to its relative ones only where the configuration says so."""
    return config.max_position_embeddings if config.position_biased_input else None


def _of_mpnet(config: Any) -> int:
    """MPNet's code has 1 for the padding's token, whatever the configuration says."""
    limit: int = config.max_position_embeddings - 2
    return limit


def _attend_fully(model: Any) -> None:
    """Give BigBird full attention always.

    Its block-sparse attention in transformers changes to full attention at the first batch of texts of up to 704 tokens
    (base model), and never back.
    """
    if model.config.attention_type == "block_sparse":
        model.set_attention_type("original_full")


XLM_SITES = {
    "ffn": Within(r"lin2"),
    "attention": Within(r"out_lin"),
    "query": Within(r"q_lin"),
    "key": Within(r"k_lin"),
    "value": Within(r"v_lin"),
}
XLM_BLOCK = r"(?:attentions|layer_norm1|ffns|layer_norm2)\.(?P<layer>\d+)"


def roberta_like(name: str, bases: Mapping[str, str], sites: Mapping[str, Within] = BERT_SITES) -> Architecture:
    """Return the record of a family with RoBERTa's blocks, positions and head; ``bases`` by model type."""
    classifiers = {model_type: Classifier(f"{base}.", ROBERTA_HEAD) for model_type, base in bases.items()}
    return Architecture(
        name, (*bases,), BERT_BLOCK, "first", dict(sites), positions=after_padding, classifiers=classifiers
    )


def bert_like(name: str, model_type: str, base: str, sites: Mapping[str, Within] = BERT_SITES) -> Architecture:
    """Return the record of a family with BERT's blocks and pooler."""
    classifiers = {model_type: Classifier(f"{base}.", bert_heads(base))}
    return Architecture(name, (model_type,), BERT_BLOCK, "pooler", dict(sites), classifiers=classifiers)


ENCODERS = [
    roberta_like("RoBERTa", {"roberta": "roberta", "data2vec-text": "data2vec_text"}),
    roberta_like("XLM-R", {"xlm-roberta": "roberta"}),
    roberta_like("XLM-R XL", {"xlm-roberta-xl": "roberta"}, PRENORM_SITES),
    roberta_like("CamemBERT", {"camembert": "roberta"}),
    roberta_like("RoBERTa-PreLayerNorm", {"roberta-prelayernorm": "roberta_prelayernorm"}, PRENORM_SITES),
    bert_like("BERT", "bert", "bert"),
    bert_like("ERNIE", "ernie", "ernie"),
    bert_like("RemBERT", "rembert", "rembert"),
    bert_like("Megatron-BERT", "megatron-bert", "bert", PRENORM_SITES),
    Architecture("ELECTRA", ("electra",), BERT_BLOCK, "first", BERT_SITES),
    Architecture("BigBird", ("big_bird",), BERT_BLOCK, "first", BERT_SITES, after_loading=_attend_fully),
    Architecture("RoFormer", ("roformer",), BERT_BLOCK, "first", BERT_SITES),
    Architecture(
        "MPNet",
        ("mpnet",),
        BERT_BLOCK,
        "first",
        {
            **BERT_SITES,
            "attention": Within(r"attention\.attn\.o"),
            "query": Within(r"attention\.attn\.q"),
            "key": Within(r"attention\.attn\.k"),
            "value": Within(r"attention\.attn\.v"),
        },
        positions=_of_mpnet,
        no_prefix=READS_NO_CACHE,
        classifiers={"mpnet": Classifier("mpnet.", ROBERTA_HEAD)},
    ),
    # The columns of version 1's fused in_proj go head by head: no third of them is the query, so none is a site.
    Architecture(
        "DeBERTa",
        ("deberta",),
        BERT_BLOCK,
        "first",
        {site: BERT_SITES[site] for site in ("ffn", "attention", "residual")},
        wider=dict.fromkeys(("query", "key", "value"), "*.in_proj"),
        by_batch=r"(?:.*\.)?encoder\..*\.(?:pos_proj|pos_q_proj)",  # they see the relative positions alone
        positions=_of_deberta,
        no_prefix=READS_NO_CACHE,
        classifiers={"deberta": DEBERTA_CLASSIFIER},
    ),
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
        positions=_of_deberta,
        no_prefix=READS_NO_CACHE,
        classifiers={"deberta-v2": DEBERTA_CLASSIFIER},
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
        no_prefix=READS_NO_CACHE,
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
        no_prefix=READS_NO_CACHE,
        classifiers={
            "albert": Classifier(
                "albert.",
                {("first", True): {"dense": "albert.pooler", "out_proj": "classifier"}, ("pooler", False): PROJECTION},
            )
        },
    ),
    # A layer of XLM is no module: its parts lie in lists side by side.
    Architecture(
        "XLM",
        ("xlm",),
        XLM_BLOCK,
        "first",
        {**XLM_SITES, "residual": Within("", block=r"layer_norm2\.(?P<layer>\d+)")},
        no_prefix=FIXED_MASK,
        classifiers={"xlm": XLM_CLASSIFIER},
    ),
    # Where its config says pre_norm (FlauBERT-small and -large), the norm comes before the FFN, and the sum is the
    # output of no module. transformers 5.24 fails to run these at all.
    Architecture(
        "FlauBERT",
        ("flaubert",),
        XLM_BLOCK,
        "first",
        XLM_SITES,
        no_prefix=FIXED_MASK,
        classifiers={"flaubert": XLM_CLASSIFIER},
    ),
    Architecture(
        "ModernBERT",
        ("modernbert",),
        LLAMA_BLOCK,
        "first",  # unless its config says "mean", as those of the published models do
        {
            "ffn": Within(r"mlp\.Wo"),
            "attention": Within(r"attn\.Wo"),
            "query": Within(r"attn\.Wqkv", 0, 3),
            "key": Within(r"attn\.Wqkv", 1, 3),
            "value": Within(r"attn\.Wqkv", 2, 3),
            "residual": Within(""),
        },
        no_prefix=READS_NO_CACHE,
    ),
    Architecture("EuroBERT", ("eurobert",), LLAMA_BLOCK, "first", LLAMA_SITES, no_prefix=READS_NO_CACHE),
    Architecture("UltraBERT", ("ultrabert",), LLAMA_BLOCK, "first", LLAMA_SITES, no_prefix=READS_NO_CACHE),
    Architecture(
        "Nomic BERT",
        ("nomic_bert",),
        LLAMA_BLOCK,
        "mean",
        POSTNORM_SITES,
        no_prefix=READS_NO_CACHE,
        classifiers={"nomic_bert": Classifier("nomic_bert.", bert_heads("nomic_bert", pooled=False))},
    ),
    Architecture(
        "GTE",
        ("gte",),
        LLAMA_BLOCK,
        "first",
        POSTNORM_SITES,
        no_prefix=READS_NO_CACHE,
        classifiers={"gte": Classifier("gte.", bert_heads("gte", pooled=False))},
    ),
    Architecture(
        "Jina Embeddings v3",
        ("jina_embeddings_v3",),
        LLAMA_BLOCK,
        "mean",
        {**POSTNORM_SITES, "ffn": Within(r"mlp\.fc2")},
        no_prefix=READS_NO_CACHE,
        classifiers={"jina_embeddings_v3": Classifier("roberta.", ROBERTA_HEAD)},
    ),
]
