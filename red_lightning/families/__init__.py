"""What is true of a model family, one record each. To add one, append it to the list of its kind."""

from red_lightning.families.architecture import SITES, Architecture, Pooling, Within
from red_lightning.families.registry import ARCHITECTURES, architecture_of, can_pack, depends_on_length, record_of

__all__ = [
    "ARCHITECTURES",
    "SITES",
    "Architecture",
    "Pooling",
    "Within",
    "architecture_of",
    "can_pack",
    "depends_on_length",
    "record_of",
]
