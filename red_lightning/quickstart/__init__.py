"""The default that ships with the package: a tiny backbone, and the grammar that makes its corpora."""

from pathlib import Path

from red_lightning.quickstart.data import Restaurants

BACKBONE_FOLDER = Path(__file__).parent / "backbone"

__all__ = ["BACKBONE_FOLDER", "Restaurants"]
