"""Representation Editing (RED, arXiv 2402.15179) on PyTorch Lightning."""

from red_lightning.artifacts import apply_edits, save_edits
from red_lightning.methods import RED, FullFineTuning, Method, RepresentationEditor

__all__ = ["RED", "FullFineTuning", "Method", "RepresentationEditor", "apply_edits", "save_edits"]
