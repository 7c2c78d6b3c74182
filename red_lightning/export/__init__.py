"""Export an edited model: merged checkpoints, files for GGUF converters, and repositories on the hub."""

from red_lightning.export.merge_comparison import Difference, largest_difference
from red_lightning.export.merged_checkpoint import Merged, export_merged
from red_lightning.export.pushing import Pushed, push

__all__ = ["Difference", "Merged", "Pushed", "export_merged", "largest_difference", "push"]
