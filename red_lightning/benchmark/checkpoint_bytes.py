"""Count the bytes of the files of a run: the checkpoint to resume from, and the adapter to share.

Each run takes one step on the quickstart's data, so that the checkpoint contains the state of Adam.
"""

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning import Trainer

from red_lightning.adapters import save_edits
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.measure import Table
from red_lightning.benchmark.random_models import random_task, shape_of, tokenizer_of
from red_lightning.callbacks import BestCheckpoint
from red_lightning.methods import RED, LoRA
from red_lightning.quickstart import Restaurants
from red_lightning.tasks import DataToText


def checkpoint_bytes(settings: Settings) -> Iterator[Table]:
    """Count the files of RED and LoRA on a GPT-2."""
    shape = shape_of("gpt2", settings)
    sizes: dict[str, float] = {}
    with TemporaryDirectory() as place, redirect_stdout(StringIO()):
        for name, method in (("RED", RED()), ("LoRA, rank 8", LoRA())):
            folder = Path(place, name)
            task = random_task(DataToText, method, shape, tokenizer_of("quickstart"), settings, metrics=["BLEU"])
            task.configure_model()
            frozen = [parameter for parameter in task.backbone.parameters() if not parameter.requires_grad]
            sizes.setdefault("weights of the whole model", float(sum(parameter.nbytes for parameter in frozen)))
            _fit(task, folder, settings)
            sizes[f"{name}: last.ckpt"] = _size(folder / "checkpoints/last.ckpt")
            learned = {key.removeprefix("backbone."): value for key, value in task.trainable_parameters().items()}
            save_edits(folder / "edits", learned, {k: v for k, v in task.record().items() if k != "shapes"})
            sizes[f"{name}: edits/"] = _size(*(folder / "edits").iterdir())
    yield Table(shape.model, counts={"bytes": sizes})


def _fit(task: DataToText, folder: Path, settings: Settings) -> None:
    data = Restaurants(global_batch_size=2, max_source_length=80, max_target_length=80)
    data.connect(task.tokenizer, encoder_decoder=False)
    trainer = Trainer(
        accelerator="gpu" if settings.device == "cuda" else "cpu",
        devices=1,
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        callbacks=[BestCheckpoint()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)


def _size(*files: Path) -> float:
    return float(sum(file.stat().st_size for file in files))
