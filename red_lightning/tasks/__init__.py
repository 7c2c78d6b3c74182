"""LightningModules, one per task family: a frozen backbone, a method, a loss."""

from red_lightning.tasks.backbone_task import BackboneTask
from red_lightning.tasks.classification import Classification
from red_lightning.tasks.classifier import ClassifierTask
from red_lightning.tasks.data_to_text import DataToText
from red_lightning.tasks.instruction_tuning import InstructionTuning
from red_lightning.tasks.text_to_text import TextToTextClassification

__all__ = [
    "BackboneTask",
    "Classification",
    "ClassifierTask",
    "DataToText",
    "InstructionTuning",
    "TextToTextClassification",
]
