"""What a run leaves behind: the edits on disk, and pictures."""

from red_lightning.adapters.attaching import apply_edits
from red_lightning.adapters.combining import combine_edits
from red_lightning.export.merge_comparison import largest_difference
from red_lightning.pictures.confusion_matrix import draw_confusion
from red_lightning.adapters.file_format import load_head, read_edits, save_edits, site_name
from red_lightning.adapters.edited import Edited, copy_edits, find_edits, load
from red_lightning.export.merged_checkpoint import Merged, export_merged
from red_lightning.pictures.edits_by_layer import draw_edits
from red_lightning.export.pushing import Pushed, push

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
