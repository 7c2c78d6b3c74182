"""Pictures of edits, confusion matrices, grades and studies. They need matplotlib (the extra ``plots``)."""

from red_lightning.pictures.confusion_matrix import draw_confusion
from red_lightning.pictures.edits_by_layer import draw_edits

__all__ = ["draw_confusion", "draw_edits"]
