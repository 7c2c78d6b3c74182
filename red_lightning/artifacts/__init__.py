"""What a run leaves behind: the edits on disk, and pictures."""

from red_lightning.artifacts.confusion import draw_confusion
from red_lightning.artifacts.edits import apply_edits, load_head, read_edits, save_edits, site_name
from red_lightning.artifacts.loading import Edited, find_edits, load
from red_lightning.artifacts.picture import draw_edits

__all__ = [
    "Edited",
    "apply_edits",
    "draw_confusion",
    "draw_edits",
    "find_edits",
    "load",
    "load_head",
    "read_edits",
    "save_edits",
    "site_name",
]
