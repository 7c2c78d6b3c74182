"""Adapters on disk: their file format, loading, saving, importing and combining."""

from red_lightning.adapters.attaching import apply_edits
from red_lightning.adapters.combining import combine_edits
from red_lightning.adapters.edited import Edited, copy_edits, find_edits, load
from red_lightning.adapters.file_format import load_head, read_edits, save_edits, site_name

__all__ = [
    "Edited",
    "apply_edits",
    "combine_edits",
    "copy_edits",
    "find_edits",
    "load",
    "load_head",
    "read_edits",
    "save_edits",
    "site_name",
]
