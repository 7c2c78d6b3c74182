"""Say what a run is about to do, before its first step."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only


class RunSummary(Callback):
    """Prints what trains, how many rows and steps there are, and how many texts are cut."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        backbone = {name: p for name, p in pl_module.named_parameters() if not name.startswith("head.")}
        trains = [p for p in backbone.values() if p.requires_grad]
        count, every = sum(p.numel() for p in trains), sum(p.numel() for p in backbone.values())
        head = sum(p.numel() for name, p in pl_module.named_parameters() if name not in backbone)
        beside = f", and the head's {head:,}" if head else ""
        print(f"training {count:,} of {every:,} parameters ({count / every:.3%}) in {len(trains)} tensors{beside}")
        data = getattr(trainer, "datamodule", None)
        counted = getattr(data, "counts", {})
        rows = {split: counted[split] for split in ("train", "validation", "test") if split in counted}
        counts = ", ".join(f"{count:,} {split} rows" for split, count in rows.items())
        print(f"{counts}; {trainer.estimated_stepping_batches:,} steps")
        for warning in getattr(data, "warnings", []):
            print(f"warning: {warning}")
        for split, cut in getattr(data, "cut", {}).items():
            if cut:
                print(f"note: {cut:,} texts of the {split} split are longer than the limits and were cut")
