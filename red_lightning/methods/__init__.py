"""Ways to adapt a frozen backbone: one paper, one file."""

from red_lightning.methods.base import Method
from red_lightning.methods.full import FullFineTuning
from red_lightning.methods.head_only import HeadOnly
from red_lightning.methods.red import RED, RED_PLUS_SITES, RepresentationEditor

__all__ = ["RED", "RED_PLUS_SITES", "FullFineTuning", "HeadOnly", "Method", "RepresentationEditor"]
