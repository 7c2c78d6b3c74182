"""Print what a run is about to do, before its first step."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only


class RunSummary(Callback):
    """Prints what trains, how many rows and steps there are, what makes a step, and what is left out or cut."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        size: dict[str, int] = pl_module.size  # type: ignore[assignment]
        count, every, head = size["trained"], size["backbone"], size["head"]
        beside = f", and the head's {head:,}" if head else ""
        print(f"training {count:,} of {every:,} parameters ({count / every:.3%}) in {size['tensors']} tensors{beside}")
        data = getattr(trainer, "datamodule", None)
        counted = getattr(data, "counts", {})
        rows = {split: counted[split] for split in ("train", "validation", "test") if split in counted}
        counts = ", ".join(f"{count:,} {split} rows" for split, count in rows.items())
        print(f"{counts}; {trainer.estimated_stepping_batches:,} steps")
        if batch := getattr(data, "global_batch_size", 0):
            print(f"an optimizer step takes {_divided(batch, trainer)}")
        self._report(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what became of the test rows."""
        self._report(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what became of the rows to predict."""
        self._report(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what became of the validation rows, if nothing else is run."""
        if trainer.state.fn == "validate":
            self._report(trainer)

    @rank_zero_only
    def _report(self, trainer: Trainer) -> None:
        """Print what the data module says of its rows, each line once."""
        data = getattr(trainer, "datamodule", None)
        lines = [*getattr(data, "notes", []), *(f"warning: {warning}" for warning in getattr(data, "warnings", []))]
        for split, cut in getattr(data, "cut", {}).items():
            if cut:
                lines.append(f"note: {cut:,} texts of the {split} split are longer than the limits and were cut")
        for line in lines:
            if line not in self._printed:
                print(line)
                self._printed.add(line)


def _divided(rows: int, trainer: Trainer) -> str:
    """A global batch, and how it is divided."""
    processes, micro_batches = trainer.world_size, trainer.accumulate_grad_batches
    share = f"{rows // (processes * micro_batches):,} rows"
    parts = [f"{processes:,} processes"] * (processes > 1) + [f"{micro_batches:,} micro-batches"] * (micro_batches > 1)
    return " x ".join([share, *parts]) + (f" = {rows:,} rows" if parts else "")
