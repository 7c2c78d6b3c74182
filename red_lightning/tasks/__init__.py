"""LightningModules, one per task family: a frozen backbone, a method, a loss."""

from red_lightning.tasks.base import BackboneTask
from red_lightning.tasks.data_to_text import DataToText

__all__ = ["BackboneTask", "DataToText"]
