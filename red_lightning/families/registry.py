"""Find the record of a backbone's family."""

from collections.abc import Callable
from typing import Any

from red_lightning.errors import UsageError
from red_lightning.families.architecture import Architecture
from red_lightning.families.decoders import DECODERS
from red_lightning.families.encoder_decoders import ENCODER_DECODERS
from red_lightning.families.encoders import ENCODERS
from red_lightning.families.hybrids import HYBRIDS
from red_lightning.families.mixtures import MIXTURES
from red_lightning.families.unsupported import UNSUPPORTED

ARCHITECTURES = [*ENCODERS, *DECODERS, *HYBRIDS, *MIXTURES, *ENCODER_DECODERS]
"""Every record."""


def architecture_of(config: Any, propose: Callable[[], str] = str) -> Architecture:
    """Return the record of a backbone's family.

    Args:
        config: The backbone's Hugging Face configuration.
        propose: Returns which modules of the loaded backbone can be given as sites, in words. Called for an error only.

    Raises:
        UsageError: The family has no record, or its record refuses the model. The message gives the reason, the
            families with a record, and how to name the modules by hand.
    """
    architecture = record_of(config)
    model_type = getattr(config, "model_type", None)
    by_hand = "name the modules by hand instead, as patterns: sites: ['*.mlp.down_proj']"
    if architecture is None:
        known = ", ".join(architecture.name for architecture in ARCHITECTURES)
        reason = f": {why}" if (why := _reason(config)) else ""
        raise UsageError(
            f"the model family '{model_type}' has no record of where its sites lie{reason} (families known: {known}); "
            f"{propose() or by_hand}"
        )
    if architecture.refuses and (reason := architecture.refuses(config)):
        raise UsageError(
            f"this {architecture.name} ({model_type}) has no sites by name: {reason}; {propose() or by_hand}"
        )
    return architecture


def _reason(config: Any) -> str:
    """Return why a family has no record; empty if the reason is unknown."""
    text = getattr(config, "text_config", None)
    if text is not None and record_of(text) is not None:
        return f"it is multimodal, and only its text part ({text.model_type}) can be edited; save that as a checkpoint"
    return UNSUPPORTED.get(getattr(config, "model_type", ""), "")


def depends_on_length(config: Any) -> bool:
    """Return whether the longest row of a batch changes the positions of all: dynamic and long rotary embeddings."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") for kind in kinds)


def can_pack(config: Any) -> bool:
    """Return whether a backbone's family keeps packed texts apart (see :attr:`Architecture.packs`)."""
    architecture = record_of(config)
    return architecture is not None and architecture.packs and not depends_on_length(config)


def record_of(config: Any) -> Architecture | None:
    """Return the record of a backbone's family; None if there is none."""
    model_type = getattr(config, "model_type", None)
    return next((record for record in ARCHITECTURES if model_type in record.model_types), None)
