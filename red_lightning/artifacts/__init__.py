"""What a run leaves behind: the edits on disk, and pictures."""

from red_lightning.artifacts.attaching import apply_edits
from red_lightning.artifacts.combine import combine_edits
from red_lightning.artifacts.comparison import largest_difference
from red_lightning.artifacts.confusion import draw_confusion
from red_lightning.artifacts.edits import load_head, read_edits, save_edits, site_name
from red_lightning.artifacts.loading import Edited, copy_edits, find_edits, load
from red_lightning.artifacts.merged import Merged, export_merged
from red_lightning.artifacts.picture import draw_edits
from red_lightning.artifacts.sharing import Pushed, push

__all__ = [
    "Edited",
    "Merged",
    "Pushed",
    "apply_edits",
    "combine_edits",
    "copy_edits",
    "draw_confusion",
    "draw_edits",
    "export_merged",
    "find_edits",
    "largest_difference",
    "load",
    "load_head",
    "push",
    "read_edits",
    "save_edits",
    "site_name",
]
