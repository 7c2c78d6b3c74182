"""The default that ships with the package: a tiny backbone, and the grammar that makes its corpora."""

from pathlib import Path

BACKBONE_FOLDER = Path(__file__).parent / "backbone"
