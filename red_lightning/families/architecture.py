"""The record of a model family: blocks, edit sites, pooling, logits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

SITES = ("ffn", "attention", "query", "key", "value", "residual")
"""The names of edit sites. RED edits ``ffn`` (paper, section 3.2); RED+ all but ``residual`` (authors' repository)."""

Pooling = Literal["first", "mean", "last", "pooler"]
"""Which representation stands for a text when a classifier is put on top: that of the first token, the mean over the
tokens, that of the last token (padding never counts), or the output of the pretrained pooler."""


READS_NO_CACHE = "reads no cache of keys and values"
FIXED_MASK = "accepts no attention mask that is longer than the text"
"""Values of :attr:`Architecture.no_prefix`."""


@dataclass(frozen=True)
class Within:
    """A module inside a block, or one of several equally wide parts of its output.

    Attributes:
        module: Module name relative to the block, as a regular expression; empty for the block itself.
        part: Index of the part of the output columns that the site is.
        parts: Number of equally wide parts that the output columns divide into.
        block: Regular expression for the module that holds it, where that is not the family's block: XLM keeps its
            attentions, FFNs and norms in lists of their own.
    """

    module: str
    part: int = 0
    parts: int = 1
    block: str = ""


@dataclass(frozen=True)
class Classifier:
    """The sequence classifier of transformers for a model type, if it can compute what a trained head does.

    Attributes:
        base: Prefix of the backbone's parameters in it, such as ``roberta.``.
        heads: For a pooling and whether the head has a dense layer: the names of ``dense`` and ``out_proj`` in it.
        settings: Values of its configuration with which it computes what the head does.
    """

    base: str
    heads: Mapping[tuple[Pooling, bool], Mapping[str, str]]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FusedFFN:
    """Liger Kernel's modules for the FFNs and norms of a model type.

    Attributes:
        module: Name of the class for the FFN.
        activation: The activation that it computes.
        norm: Arguments of the RMSNorm.
    """

    module: str
    activation: str
    norm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Equivalent:
    """Another architecture of transformers that computes what a model type computes and can have more biases.

    Attributes:
        name: What people call it.
        model_type: Its model type.
        fields: Fields of the configuration that it shares with the model type.
        parts: Maps its configuration to the linears that replace a fused linear: for the name of the fused linear, the
            names and output columns of the linears. None where it fuses what the model type fuses.
    """

    name: str
    model_type: str
    fields: tuple[str, ...]
    parts: Callable[[Any], Mapping[str, tuple[tuple[str, int], ...]]] | None = None


SWIGLU = FusedFFN("LigerSwiGLUMLP", "silu")
# Gemma's norms multiply by 1 + weight, before they round.
GEGLU = FusedFFN("LigerGEGLUMLP", "gelu_pytorch_tanh", {"offset": 1.0, "casting_mode": "gemma"})


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
        packs: Whether packed texts give the same hidden states as single texts. Packed: in one row, with positions that
            restart, without attention mask and cache. transformers then masks the texts from each other.
        wider: For methods that adapt whole linears (LoRA), the modules that a site's name stands for besides the site
            of that name, as a module-name pattern.
        by_batch: Regular expression for the modules that compute once for the whole batch, not for each row; empty for
            none.
        logits: Maps the configuration and the output of the head to the logits (a scale, a soft cap). None where the
            output of the head is the logits.
        head_bias: Name of the model's buffer that is added to the output of the head; empty for none.
        positions: Maps the configuration to the most tokens that a backbone can read, or to None for no limit. None
            where ``n_positions`` or ``max_position_embeddings`` of the configuration is the limit.
        classifiers: For a model type, its sequence classifier in transformers, into which a trained head merges.
        fused_ffns: For a model type, the fused modules that compute its FFNs and norms.
        equivalents: For a model type, the architecture into which an edit merges where the model type has no biases.
        llama_cpp: The model types whose decoders llama.cpp runs, and whether it reads biases that published models of
            the type do not have.
        older_fields: For a field of older configurations, which servers and transformers 4 read, its name today.
        older_tensors: For a parameter, its name in files that older versions of transformers wrote.
        after_loading: Called with each loaded encoder, to change what the configuration cannot.
        released_task: The task that the authors of RED trained the family for; empty where the kind of model tells it.
        no_prefix: Why learned keys and values cannot precede a text (prefix tuning); empty where they can.
        recurrent: Whether some blocks keep a state in place of keys and values. ``generate`` of transformers then
            decodes, because our beam search reorders keys and values only.
        refuses: Maps the configuration to the reason why the sites of this model cannot be edited, or to an empty
            string. None where every model of the family can be edited.
    """

    name: str
    model_types: tuple[str, ...]
    block: str
    pooling: Pooling | None
    sites: dict[str, Within] = field(default_factory=dict)
    packs: bool = False
    wider: dict[str, str] = field(default_factory=dict)
    by_batch: str = ""
    logits: Callable[[Any, Tensor], Tensor] | None = None
    head_bias: str = ""
    positions: Callable[[Any], int | None] | None = None
    classifiers: Mapping[str, Classifier] = field(default_factory=dict)
    fused_ffns: Mapping[str, FusedFFN] = field(default_factory=dict)
    equivalents: Mapping[str, Equivalent] = field(default_factory=dict)
    llama_cpp: Mapping[str, bool] = field(default_factory=dict)
    older_fields: Mapping[str, str] = field(default_factory=dict)
    older_tensors: Mapping[str, str] = field(default_factory=dict)
    after_loading: Callable[[Any], None] | None = None
    released_task: str = ""
    no_prefix: str = ""
    recurrent: bool = False
    refuses: Callable[[Any], str] | None = None

    @property
    def encoder_decoder(self) -> bool:
        """Whether an encoder reads the source and a decoder generates the target."""
        return self.pooling is None

    def block_pattern(self) -> "re.Pattern[str]":
        """Return a pattern that matches the full names of the family's blocks."""
        return re.compile(rf"(?:.*\.)?{self.block}")

    def site_pattern(self, site: str) -> "re.Pattern[str]":
        """Return a pattern that matches the full names of a site's modules (group ``layer``: the layer number)."""
        within = self.sites[site]
        inside = rf"\.{within.module}" if within.module else ""
        return re.compile(rf"(?:.*\.)?{within.block or self.block}{inside}")


def no_limit(config: Any) -> None:
    """Return None: the positions of the family are relative, or it has none. For :attr:`Architecture.positions`."""


def after_padding(config: Any) -> int:
    """Return the limit of a family whose first position is ``pad_token_id + 1``: rows before it serve no text."""
    limit: int = config.max_position_embeddings - config.pad_token_id - 1
    return limit
