"""Small conversations, and an instruction-tuning task on them."""

from pathlib import Path
from typing import Any

from red_lightning import RED
from red_lightning.data import ConversationsDataModule
from red_lightning.data.hub_rows import Row
from red_lightning.data.row_data_module import Split
from red_lightning.generation import Decoding
from red_lightning.tasks import InstructionTuning
from tests.training import FOODS, NAMES

FIRST = {"train": 0, "validation": 1000, "test": 2000, "predict": 3000}
"""Number of the first row of each split: no two splits have a prompt in common."""


def conversation(number: int) -> list[dict[str, str]]:
    """A question and an answer, of lengths that differ from row to row."""
    name, food = NAMES[number % 5], FOODS[number % 3]
    answer = " ".join([f"{name} serves {food} food."] * (1 + number % 4))
    return [
        {"role": "user", "content": f"What does {name} {number} serve{' today' * (number % 3)}?"},
        {"role": "assistant", "content": answer},
    ]


class Conversations(ConversationsDataModule):
    """Conversations that are made here.

    Args:
        sizes: Rows of each split, by its name.
        **options: Those of :class:`ConversationsDataModule`.
    """

    def __init__(self, sizes: dict[str, int] | None = None, **options: Any) -> None:
        super().__init__(**{"global_batch_size": 4, "eval_batch_size": 3, "max_length": 200, **options})
        self.sizes = {"train": 11, "validation": 5, "test": 4, "predict": 3, **(sizes or {})}

    def read(self, split: Split) -> list[Row]:
        first = FIRST[split]
        return [
            {"messages": conversation(first + number), "row": number, "where": f"row {number}"}
            for number in range(self.sizes[split])
        ]


def tuning(backbone: Path, **options: Any) -> InstructionTuning:
    """A task that decodes quickly."""
    decoding = Decoding(1, no_repeat_ngram_size=5, repetition_penalty=1.1, max_new_tokens=6, stop_at_blank_line=False)
    settings: dict[str, Any] = {"method": RED(), "learning_rate": 1e-2, "decoding": decoding}
    return InstructionTuning(str(backbone), **{**settings, **options})
