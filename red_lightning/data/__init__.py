"""LightningDataModules: each says where the rows come from; loading and collation are shared."""

from red_lightning.data.conversations import ConversationsDataModule
from red_lightning.data.e2e import E2E
from red_lightning.data.glue import GLUE, GLUE_TASKS
from red_lightning.data.instructions import Instructions
from red_lightning.data.labeled_texts import LabeledTexts
from red_lightning.data.pairs import PairsDataModule
from red_lightning.data.row_data_module import RowsDataModule
from red_lightning.data.text_classification import ClassificationDataModule
from red_lightning.data.text_pairs import TextPairs
from red_lightning.data.ultrafeedback import UltraFeedback

__all__ = [
    "E2E",
    "GLUE",
    "GLUE_TASKS",
    "ClassificationDataModule",
    "ConversationsDataModule",
    "Instructions",
    "LabeledTexts",
    "PairsDataModule",
    "RowsDataModule",
    "TextPairs",
    "UltraFeedback",
]
