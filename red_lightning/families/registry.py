"""Find the record of a backbone's family."""

from typing import Any

from red_lightning.errors import UsageError
from red_lightning.families.decoders import DECODERS
from red_lightning.families.encoder_decoders import ENCODER_DECODERS
from red_lightning.families.encoders import ENCODERS
from red_lightning.families.mixtures import MIXTURES
from red_lightning.families.record import Architecture

ARCHITECTURES = [*ENCODERS, *DECODERS, *MIXTURES, *ENCODER_DECODERS]
"""Every record."""


UNSUPPORTED = {
    **dict.fromkeys(
        ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"),
        "its blocks have no FFN, whose output RED edits",
    ),
    **dict.fromkeys(
        ("jamba", "bamba", "zamba", "zamba2", "nemotron_h", "falcon_h1", "recurrent_gemma"),
        "its blocks are of several kinds (state space, attention, FFN), whose outputs no single site covers",
    ),
    "granitemoeshared": "it sums up a mixture of experts and a shared FFN outside of any module",
    "deepseek_v4": "it mixes several residual streams, so the output of its FFN is not what is added to one of them",
    "phi4_multimodal": "its linears hold adapters for images and speech of its own",
    "gpt_neox_japanese": "it adds the biases of its linears outside of them, so an edit would sit before the bias",
    "modernbert-decoder": "it has no edit sites yet",
    "xlnet": "it reads and predicts by permutation, which no task here does",
}
"""Model types without a record, and the reason."""


def architecture_of(config: Any, proposal: str = "") -> Architecture:
    """The record of a backbone's family.

    Args:
        config: The backbone's Hugging Face configuration.
        proposal: Which modules of the backbone could be given as sites, in words, where it is loaded.

    Raises:
        UsageError: No record knows the family, or its record refuses the model; the sentence says why, which families
            have a record, and how to give sites by hand.
    """
    architecture = record_of(config)
    model_type = getattr(config, "model_type", None)
    way = proposal or "name the modules by hand instead, as patterns: sites: ['*.mlp.down_proj']"
    if architecture is None:
        known = ", ".join(architecture.name for architecture in ARCHITECTURES)
        reason = f": {why}" if (why := _reason(config)) else ""
        raise UsageError(
            f"the model family '{model_type}' has no record of where its sites lie{reason} (families known: {known}); "
            f"{way}"
        )
    if architecture.refuses and (reason := architecture.refuses(config)):
        raise UsageError(f"this {architecture.name} ({model_type}) has no sites by name: {reason}; {way}")
    return architecture


def _reason(config: Any) -> str:
    """Why a family has no record; empty if nobody has looked at it."""
    text = getattr(config, "text_config", None)
    if text is not None and record_of(text) is not None:
        return f"it is multimodal, and only its text part ({text.model_type}) can be edited; save that as a checkpoint"
    return UNSUPPORTED.get(getattr(config, "model_type", ""), "")


def can_pack(config: Any) -> bool:
    """Whether a backbone's family is known to keep packed texts apart (see :attr:`Architecture.packs`)."""
    architecture = record_of(config)
    return architecture is not None and architecture.packs


def record_of(config: Any) -> Architecture | None:
    """The record of a backbone's family; None if there is none."""
    model_type = getattr(config, "model_type", None)
    return next((record for record in ARCHITECTURES if model_type in record.model_types), None)
