"""A program that trains with :class:`TaskScore` under a strategy: ``train_and_score.py '{...}'``."""

import json
import sys
from pathlib import Path

from red_lightning.callbacks import BestCheckpoint
from red_lightning.evaluation import TaskScore
from tests.strategies.on_cpu import STRATEGIES
from tests.training import make_data, make_task, make_trainer


def train(backbone: str, out: str, task: str, strategy: str = "auto", devices: int = 1) -> None:
    """Fit two epochs, and write the scores of the validations."""
    keeper = BestCheckpoint("val_cuisines_acc", "max", folder=f"{out}_kept")
    score = TaskScore("cuisines", include_path=task, batch_size=3)
    trainer = make_trainer(
        Path(out).parent,
        strategy=STRATEGIES[strategy](),
        devices=devices,
        max_epochs=2,
        num_sanity_val_steps=1,
        callbacks=[keeper, score],
    )
    data = make_data(Path(out).parent, global_batch_size=4, seed=7)
    trainer.fit(make_task(Path(backbone), learning_rate=0.05, schedule="constant"), datamodule=data)
    if trainer.is_global_zero:
        Path(f"{out}.json").write_text(json.dumps({**score.state_dict(), "best": keeper.best_score}))


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
