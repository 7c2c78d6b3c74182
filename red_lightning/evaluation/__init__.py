"""Outside scorers, and the callback that chooses the best checkpoint by them."""

from red_lightning.evaluation.task_score import TaskScore

__all__ = ["TaskScore"]
