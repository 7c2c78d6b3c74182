"""LightningDataModules: each says where the rows come from; loading and collation are shared."""

from red_lightning.data.e2e import E2E
from red_lightning.data.pairs import PairsDataModule
from red_lightning.data.text_pairs import TextPairs

__all__ = ["E2E", "PairsDataModule", "TextPairs"]
