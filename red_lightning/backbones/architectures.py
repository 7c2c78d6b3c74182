"""Where each edit site lies and what stands for a text, one record per model family.

A family is a pattern for its blocks, for each site the module inside a block whose output the site is, and the
representation that a classifier reads. To add a family, append one :class:`Architecture` to :data:`ARCHITECTURES`.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from red_lightning.errors import UsageError

SITES = ("ffn", "attention", "query", "key", "value", "residual")
"""The names of edit sites. RED edits ``ffn`` (paper, section 3.2); RED+ all but ``residual`` (authors' repository)."""

Pooling = Literal["first", "mean", "last", "pooler"]
"""Which representation stands for a text when a classifier is put on top: that of the first token, the mean over the
tokens, that of the last token (padding never counts), or the output of the pretrained pooler."""


@dataclass(frozen=True)
class Within:
    """A module inside a block, or one of several equally wide parts of its output.

    Attributes:
        module: Module name relative to the block, as a regular expression; empty for the block itself.
        part: Index of the part of the output columns that the site is.
        parts: Number of equally wide parts that the output columns divide into.
    """

    module: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        name: What people call the family.
        model_types: The values of ``config.model_type`` that belong to it.
        block: Regular expression for the name of a block, without what precedes it (``transformer.``, ``model.``); its
            group ``layer`` is the layer number.
        pooling: Which representation stands for a text; None where none does (encoder-decoders).
        sites: For each site name the module inside the block.
        packs: Whether texts packed into one row, with positions restarted, no attention mask and no cache, are exactly
            what they are apart: transformers then masks them from each other.
        wider: For methods that adapt whole linears (LoRA), the modules that a site's name stands for besides the site
            of that name, if there is one, as a module-name pattern.
        by_batch: Regular expression for the modules that compute something once for the whole batch, and not for each
            row of it; empty for none.
        softcap: The configuration's name of c (or None), where logits are ``c * tanh(head(h) / c)``; empty for none.
    """

    name: str
    model_types: tuple[str, ...]
    block: str
    pooling: Pooling | None
    sites: dict[str, Within] = field(default_factory=dict)
    packs: bool = False
    wider: dict[str, str] = field(default_factory=dict)
    by_batch: str = ""
    softcap: str = ""

    def block_pattern(self) -> "re.Pattern[str]":
        """A pattern that matches the full names of the family's blocks."""
        return re.compile(rf"(?:.*\.)?{self.block}")

    def site_pattern(self, site: str) -> "re.Pattern[str]":
        """A pattern that matches the full names of the modules of one site (group ``layer``: the layer number)."""
        inside = self.sites[site].module
        return re.compile(self.block_pattern().pattern + (rf"\.{inside}" if inside else ""))


BERT_BLOCK = r"encoder\.layer\.(?P<layer>\d+)"
BERT_SITES = {
    "ffn": Within(r"output\.dense"),
    "attention": Within(r"attention\.output\.dense"),
    "query": Within(r"attention\.self\.query"),
    "key": Within(r"attention\.self\.key"),
    "value": Within(r"attention\.self\.value"),
    "residual": Within(r"output"),  # after the LayerNorm: post-norm blocks end there
}

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

ARCHITECTURES = [
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
        softcap="final_logit_softcapping",
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


def architecture_of(config: Any) -> Architecture:
    """The record of a backbone's family.

    Args:
        config: The backbone's Hugging Face configuration.

    Raises:
        UsageError: No record knows the family; the sentence names those that exist and how to give sites by hand.
    """
    if architecture := record_of(config):
        return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise UsageError(
        f"the model family '{getattr(config, 'model_type', None)}' has no record of where its sites lie (families "
        f"known: {known}); name the modules by hand instead, as patterns: sites: ['*.mlp.down_proj']"
    )


def can_pack(config: Any) -> bool:
    """Whether a backbone's family is known to keep packed texts apart (see :attr:`Architecture.packs`)."""
    architecture = record_of(config)
    return architecture is not None and architecture.packs


def record_of(config: Any) -> Architecture | None:
    """The record of a backbone's family; None if there is none."""
    model_type = getattr(config, "model_type", None)
    return next((record for record in ARCHITECTURES if model_type in record.model_types), None)
