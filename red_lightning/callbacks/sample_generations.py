"""Generate sample answers during training."""

import json
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError, require_range


class SampleGenerations(Callback):
    """Answer the first prompts of the validation split at each validation, with the task's decoding options.

    The answers are written to ``samples.jsonl`` in the run's folder, with the optimizer step, and to TensorBoard if it
    logs. Training does not change.

    Args:
        count: Number of prompts. 0 disables the callback.
        file: Output file in the run's folder.
    """

    def __init__(self, count: int = 2, file: str = "samples.jsonl") -> None:
        require_range("the count of SampleGenerations", count, 0)
        self.count, self.file = count, file

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data without prompts, before anything is trained."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.count and not hasattr(data, "prompts"):
            raise UsageError(
                f"SampleGenerations answers the prompts of conversations, but the data module {type(data).__name__} "
                "has none; leave the callback out"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask every process the same, since processes that share the weights must take every step together."""
        if self.count == 0 or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        batch = trainer.datamodule.prompts("validation", self.count)  # type: ignore[attr-defined]
        assert trainer.model is not None
        answers = trainer.model(trainer.strategy.batch_to_device(batch))  # the wrapped model: FSDP gathers its weights
        if trainer.is_global_zero:
            pairs = zip(batch["text"], answers, strict=True)
            samples = [{"step": trainer.global_step, "prompt": text, "answer": answer} for text, answer in pairs]
            self._write(Path(trainer.default_root_dir, self.file), samples, trainer.global_step)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    for number, sample in enumerate(samples):
                        text = f"{sample['prompt']}\n\n---\n\n{sample['answer']}"
                        logger.experiment.add_text(f"sample {number}", text, trainer.global_step)

    def _write(self, path: Path, samples: list[dict[str, Any]], step: int) -> None:
        """Write behind the samples of earlier steps; a resumed run replaces those that it repeats."""
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        earlier = [line for line in lines if line and json.loads(line)["step"] < step]
        lines = [*earlier, *(json.dumps(sample, ensure_ascii=False) for sample in samples)]
        write_whole(path, "".join(f"{line}\n" for line in lines))
