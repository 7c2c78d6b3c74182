"""What a run leaves behind: the edits on disk."""

from red_lightning.artifacts.edits import apply_edits, read_edits, save_edits, site_name
from red_lightning.artifacts.picture import draw_edits

__all__ = ["apply_edits", "draw_edits", "read_edits", "save_edits", "site_name"]
