"""Where each edit site lies, one record per model family.

A family is a pattern for its blocks and, for each site, the module inside a block whose output the site is. To add a
family, append one :class:`Architecture` to :data:`ARCHITECTURES`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from red_lightning.errors import UsageError

SITES = ("ffn", "attention", "query", "key", "value", "residual")
"""The names of edit sites. RED edits ``ffn`` (paper, section 3.2); RED+ all but ``residual`` (authors' repository)."""


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
        sites: For each site name the module inside the block.
    """

    name: str
    model_types: tuple[str, ...]
    block: str
    sites: dict[str, Within] = field(default_factory=dict)

    def block_pattern(self) -> "re.Pattern[str]":
        """A pattern that matches the full names of the family's blocks."""
        return re.compile(rf"(?:.*\.)?{self.block}")

    def site_pattern(self, site: str) -> "re.Pattern[str]":
        """A pattern that matches the full names of the modules of one site (group ``layer``: the layer number)."""
        inside = self.sites[site].module
        return re.compile(self.block_pattern().pattern + (rf"\.{inside}" if inside else ""))


BERT_SITES = {
    "ffn": Within(r"output\.dense"),
    "attention": Within(r"attention\.output\.dense"),
    "query": Within(r"attention\.self\.query"),
    "key": Within(r"attention\.self\.key"),
    "value": Within(r"attention\.self\.value"),
    "residual": Within(r"output"),  # after the LayerNorm: post-norm blocks end there
}

ARCHITECTURES = [
    Architecture("RoBERTa", ("roberta",), r"encoder\.layer\.(?P<layer>\d+)", BERT_SITES),
    Architecture("BERT", ("bert",), r"encoder\.layer\.(?P<layer>\d+)", BERT_SITES),
    Architecture(
        "GPT-2",
        ("gpt2",),
        r"h\.(?P<layer>\d+)",
        {
            "ffn": Within(r"mlp\.c_proj"),
            "attention": Within(r"attn\.c_proj"),
            "query": Within(r"attn\.c_attn", 0, 3),
            "key": Within(r"attn\.c_attn", 1, 3),
            "value": Within(r"attn\.c_attn", 2, 3),
            "residual": Within(""),
        },
    ),
    Architecture(
        "T5",
        ("t5",),
        r"(?:encoder|decoder)\.block\.(?P<layer>\d+)",
        {
            "ffn": Within(r"layer\.\d\.DenseReluDense\.wo"),
            "attention": Within(r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.o"),
            "query": Within(r"layer\.\d\.SelfAttention\.q"),
            "key": Within(r"layer\.\d\.SelfAttention\.k"),
            "value": Within(r"layer\.\d\.SelfAttention\.v"),
            "residual": Within(""),
        },
    ),
    Architecture(
        "Llama",
        ("llama",),
        r"layers\.(?P<layer>\d+)",
        {
            "ffn": Within(r"mlp\.down_proj"),
            "attention": Within(r"self_attn\.o_proj"),
            "query": Within(r"self_attn\.q_proj"),
            "key": Within(r"self_attn\.k_proj"),
            "value": Within(r"self_attn\.v_proj"),
            "residual": Within(""),
        },
    ),
]


def architecture_of(config: Any) -> Architecture:
    """Find the record of a backbone's family.

    Args:
        config: The backbone's Hugging Face configuration.

    Returns:
        The family's record.

    Raises:
        UsageError: No record knows the family; the sentence names those that exist and how to give sites by hand.
    """
    model_type = getattr(config, "model_type", None)
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise UsageError(
        f"the model family '{model_type}' has no record of where its sites lie (families known: {known}); "
        "name the modules by hand instead, as patterns: sites: ['*.mlp.down_proj']"
    )
