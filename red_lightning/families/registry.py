"""Find the record of a backbone's family."""

from typing import Any

from red_lightning.errors import UsageError
from red_lightning.families.decoders import DECODERS
from red_lightning.families.encoder_decoders import ENCODER_DECODERS
from red_lightning.families.encoders import ENCODERS
from red_lightning.families.record import Architecture

ARCHITECTURES = [*ENCODERS, *DECODERS, *ENCODER_DECODERS]
"""Every record."""


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
