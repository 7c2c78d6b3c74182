"""Score a model on a benchmark during training, to select the best checkpoint."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.fsdp import FullyShardedDataParallel

from red_lightning.callbacks.best_checkpoint import BestCheckpoint
from red_lightning.callbacks.criterion import require_mode
from red_lightning.errors import UsageError, require_range
from red_lightning.evaluation.leaderboard import LEADERBOARD, UnavailableError, load_tasks
from red_lightning.evaluation.scoring import score_tasks
from red_lightning.families.positions import positions_left
from red_lightning.tasks import Classification

REHEARSED = 2
"""How many questions of each task are asked before training starts, to see that all is there."""


class TaskScore(Callback):
    """Scores the model on a task of lm-eval at each validation, and logs the score as a validation metric.

    ``checkpoint.monitor`` can name it, with ``checkpoint.mode: max``: the paper chooses by TruthfulQA after each epoch.
    A benchmark of the leaderboard is logged as ``val_truthfulqa``, a share between 0 and 1; any other task with each of
    its metrics, as ``val_lambada_openai_acc``. Training is not changed by it. Each process answers all the questions.

    Without lm-eval or the questions, ``checkpoint.fallback`` chooses the checkpoint and nothing is scored. Without a
    fallback, a run whose checkpoint is chosen by the score is refused before it starts. Any other run says that it goes
    on without the score.

    Args:
        task: ``arc``, ``truthfulqa``, ``winogrande``, ``gsm8k``, ``hellaswag``, ``mmlu``, or a task, group or tag of
            lm-eval.
        num_fewshot: Solved examples before each question; null for the paper's number, or the task's own.
        limit: Only the first so many questions of each task; null for all.
        batch_size: Questions at once; the score does not depend on it.
        every_n_validations: How often to score; the last score stands in between. The first validation is always
            scored.
        include_path: A folder of task descriptions of your own, in lm-eval's format.
    """

    def __init__(
        self,
        task: str = "truthfulqa",
        num_fewshot: int | None = None,
        limit: int | None = None,
        batch_size: int = 8,
        every_n_validations: int = 1,
        include_path: str | None = None,
    ) -> None:
        for name, value in {"batch_size": batch_size, "every_n_validations": every_n_validations}.items():
            require_range(f"{name} of TaskScore", value, 1)
        require_range("limit of TaskScore", 1 if limit is None else limit, 1)
        self.task, self.num_fewshot, self.limit, self.batch_size = task, num_fewshot, limit, batch_size
        self.every_n_validations, self.include_path = every_n_validations, include_path
        self.validations = 0
        self.scores: dict[str, float] = {}
        self._loaded: dict[str, Any] | None = None
        self._missing: UnavailableError | None = None
        self._ready = self._told = False

    @property
    def state_key(self) -> str:
        """What tells the state of several of these apart in a checkpoint."""
        return f"{type(self).__name__}[{self.task}]"

    def prepare(self, keepers: Iterable[Any]) -> None:
        """Load the questions, and decide what chooses the checkpoint. Call it before a fit to report that early.

        Args:
            keepers: The callbacks that keep checkpoints.

        Raises:
            UsageError: There is no such task; or the checkpoint is chosen by the score, which cannot be measured here
                and has no fallback, or is best when it is worst.
        """
        self._load()
        chosen_by = [keeper for keeper in keepers if self._is_mine(_wanted(keeper))]
        if self._missing is not None and not chosen_by and not self._told:
            rank_zero_only(print)(f"TaskScore: {self.task} is not scored, for {self._missing}")
            self._told = True
        for keeper in chosen_by:
            self._settle(keeper)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare before anything is trained; what one process cannot read, none scores.

        Raises:
            UsageError: The task in training writes no texts; or what :meth:`prepare` raises.
        """
        if stage not in ("fit", "validate") or self._ready:
            return
        if isinstance(pl_module, Classification):
            raise UsageError("TaskScore scores models that write texts, and Classification trains none; leave it out")
        self._load()
        if not trainer.strategy.reduce_boolean_decision(self._missing is None) and self._missing is None:
            way = "make lm-eval and its questions readable on every machine"
            self._loaded, self._missing = None, UnavailableError(f"another process cannot score {self.task}", way)
        self.prepare(trainer.checkpoint_callbacks if stage == "fit" else [])
        self._ready = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, and log; the check before training asks a few questions alone."""
        if self._loaded is None or any(self._is_replaced(keeper) for keeper in trainer.checkpoint_callbacks):
            return
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            pl_module.log_dict(self._score(trainer, pl_module, REHEARSED))
            return
        if trainer.state.fn != "fit" or self.validations % self.every_n_validations == 0:
            self.scores = self._score(trainer, pl_module, self.limit)
        self.validations += trainer.state.fn == "fit"
        pl_module.log_dict(self.scores)

    def state_dict(self) -> dict[str, Any]:
        """The last score (part of each checkpoint)."""
        return {"validations": self.validations, "scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting validations."""
        self.validations, self.scores = state_dict["validations"], state_dict["scores"]

    def _load(self) -> None:
        """Load the questions once, or remember why they cannot be read."""
        if self._loaded is None and self._missing is None:
            try:
                self._loaded = load_tasks(self.task, self.num_fewshot, self.include_path)
            except UnavailableError as error:
                self._missing = error

    def _settle(self, keeper: Any) -> None:
        """Decide what chooses a checkpoint that is to be chosen by the score."""
        if isinstance(keeper, BestCheckpoint):
            if keeper.reason is None:
                missing = self._missing
                told = keeper.settle(missing.reason, missing.way) if missing else keeper.settle(None)
                if told:
                    rank_zero_only(print)(told)
        elif self._missing is not None:
            raise UsageError(f"the checkpoint is chosen by {keeper.monitor}, but {self._missing}") from self._missing
        if self._loaded is None or self._is_replaced(keeper):
            return
        require_mode(keeper, self._right_modes().get(keeper.monitor, keeper.mode))

    def _is_replaced(self, keeper: Any) -> bool:
        """Whether the fallback chooses in place of the score, so that nobody needs it."""
        return isinstance(keeper, BestCheckpoint) and keeper.reason is not None and self._is_mine(_wanted(keeper))

    def _score(self, trainer: Trainer, task: Any, limit: int | None) -> dict[str, float]:
        from red_lightning.evaluation.language_model import LanguageModel

        positions, _ = positions_left(task.source.config, task.method.virtual_tokens)
        assert self._loaded is not None
        with _gathered(trainer.model), trainer.precision_plugin.val_step_context():
            model = LanguageModel(task.backbone, task.tokenizer, self.batch_size, positions)
            found = score_tasks(model, self.task, self._loaded, limit, errors=False)
        return self._named(found)

    def _named(self, found: Mapping[str, Any]) -> dict[str, float]:
        if self.task in LEADERBOARD:
            return {f"val_{self.task}": found["score"]}
        return {
            f"val_{task}_{metric.removesuffix(',none').replace(',', '_')}": value
            for task, metrics in found["metrics"].items()
            for metric, value in metrics.items()
        }

    def _right_modes(self) -> dict[str, str]:
        """Which values of the metrics are best, as far as lm-eval knows."""
        if self.task in LEADERBOARD:
            return {f"val_{self.task}": "max"}
        assert self._loaded is not None
        return {
            f"val_{name}_{metric}": "max" if better else "min"
            for name, task in self._loaded["tasks"].items()
            for metric, better in task.higher_is_better().items()
        }

    def _is_mine(self, metric: str | None) -> bool:
        if self.task in LEADERBOARD:
            return metric == f"val_{self.task}"
        return (metric or "").startswith(f"val_{self.task}_")


def _wanted(keeper: Any) -> str | None:
    """The metric by which a checkpoint is to be chosen."""
    return keeper.wanted.monitor if isinstance(keeper, BestCheckpoint) else getattr(keeper, "monitor", None)


def _gathered(model: Any) -> AbstractContextManager[None]:
    """Gather what FSDP keeps outside the blocks, which the backbone called alone would not."""
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, recurse=False, writeback=False)
    return nullcontext()
