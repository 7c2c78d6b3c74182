"""GLUE (Wang et al. 2019): the paper's eight tasks, with divided validation splits (appendix A.1, Table 8)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from red_lightning.data.hub_rows import Row, hub_rows
from red_lightning.data.provenance import hub_provenance
from red_lightning.data.row_data_module import Split
from red_lightning.data.text_classification import TEXTS, ClassificationDataModule
from red_lightning.errors import UsageError, nearest


@dataclass(frozen=True)
class GlueTask:
    """A GLUE task.

    Attributes:
        columns: Columns of its texts.
        labels: Its classes in the order of their indices; empty for regression.
        metrics: Its metrics. The first is the paper's (Table 8).
        validation_size: Rows of the validation half (Table 8).
        validation_split: Name of the hub's split that is divided.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    validation_size: int
    validation_split: str = "validation"


ENTAILS = ("entailment", "not_entailment")
GLUE_TASKS = {
    "mnli": GlueTask(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        1000,
        "validation_matched",
    ),
    "sst2": GlueTask(("sentence",), ("negative", "positive"), ("accuracy",), 436),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1"), 204),
    "cola": GlueTask(("sentence",), ("unacceptable", "acceptable"), ("matthews",), 522),
    "qnli": GlueTask(("question", "sentence"), ENTAILS, ("accuracy",), 1000),
    "qqp": GlueTask(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1"), 1000),
    "rte": GlueTask(("sentence1", "sentence2"), ENTAILS, ("accuracy",), 139),
    "stsb": GlueTask(("sentence1", "sentence2"), (), ("pearson", "spearman"), 750),
}
"""The tasks, in the order of the paper's tables."""

FROM_TRAIN = ("mnli", "qnli", "qqp", "sst2")
"""The tasks of which the authors' T5 code takes the validation rows from the training split."""


class GLUE(ClassificationDataModule):
    """A GLUE task with the paper's protocol: the hub's validation split is divided in two.

    The division depends on the seed, as in the authors' code, so the paper's seeds vary the split too.

    Args:
        task: mnli (matched), sst2, mrpc, cola, qnli, qqp, rte or stsb.
        path: Hub id, or a local folder with the same layout.
        revision: Branch, tag or commit on the hub.
        split_rule: Sizes of the splits: those of Table 8 (``paper``), or those of the authors' code for the backbone's
            family (``authors``): RTE 138/139; for T5, MNLI, QNLI, QQP and SST-2 validate on 1,000 training rows and
            test on the whole validation split, and CoLA's halves are not swapped. Both permute the rows alike.
        **options: Those of :class:`ClassificationDataModule`.
    """

    def __init__(
        self,
        task: str = "mrpc",
        path: str = "nyu-mll/glue",
        revision: str | None = None,
        split_rule: Literal["paper", "authors"] = "paper",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_task(task)
        self.task_name, self.path, self.revision, self.split_rule = task, path, revision, split_rule
        self._tables: dict[str, list[Row]] = {}

    @property
    def glue_task(self) -> GlueTask:
        """The task's record."""
        return GLUE_TASKS[self.task_name]

    @property
    def metrics(self) -> list[str]:
        """The task's metrics."""
        return list(self.glue_task.metrics)

    def label_names(self) -> list[str]:
        """The task's classes."""
        return list(self.glue_task.labels)

    def text_columns(self) -> list[str]:
        """The task's text columns."""
        return list(self.glue_task.columns)

    def read(self, split: Split) -> list[Row]:
        """Read a split, or the part of one that stands for it."""
        if split == "predict":
            return self.prediction_rows()
        from_train = self.split_rule == "authors" and self.encoder_decoder and self.task_name in FROM_TRAIN
        if split == "train":
            rows = self._table("train")
            return [rows[index] for index in self._permutation(len(rows))[1000:]] if from_train else rows
        if from_train:
            rows = self._table("train" if split == "validation" else self.glue_task.validation_split)
            return [rows[index] for index in self._permutation(len(rows))[:1000]] if split == "validation" else rows
        rows = self._table(self.glue_task.validation_split)
        return [rows[index] for index in self._parts(len(rows))[split]]

    def check(self, split: Split, rows: list[Row]) -> None:
        """Take the data set's own texts as they are (two training rows of QQP have no second question)."""
        if split == "predict" and self.predict_file is not None:
            super().check(split, rows)
        else:
            self.check_labels(split, rows)

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed of the permutation, and the rule of the sizes."""
        return {"seed": self.seed, "split_rule": self.split_rule}

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, with the resolved commit."""
        origin = hub_provenance(self.path, self.revision)
        return {**super().provenance(), **origin, "task": self.task_name, "held_out_by": self.held_out_by}

    def _parts(self, count: int) -> dict[str, list[int]]:
        """Row numbers of the validation and the test part of a split of so many rows."""
        order, size = self._permutation(count), self.glue_task.validation_size
        if size < 1000 and self.split_rule == "authors":
            size = count // 2  # RTE: 138
        if size < 1000 and count < 2 * size - 1:
            size = count // 2
            cut = f"the data set '{self.path}' is not whole: {count} rows of {self.task_name} are halved"
            self.warnings += [] if cut in self.warnings else [cut]
        if size >= count:
            raise UsageError(
                f"the {self.glue_task.validation_split} split of '{self.path}' has {count} rows for the task "
                f"{self.task_name}, which cannot give {size} validation rows and test rows; is the data set whole?"
            )
        if self.task_name == "cola" and not (self.split_rule == "authors" and self.encoder_decoder):
            test = count // 2  # its parts are swapped
            return {"test": order[:test], "validation": order[test:]}
        return {"validation": order[:size], "test": order[size:]}

    def _permutation(self, count: int) -> list[int]:
        return np.random.RandomState(self.seed).permutation(count).tolist()

    def _table(self, split: str) -> list[Row]:
        if split not in self._tables:
            columns = [*self.glue_task.columns, "label"]
            rows = hub_rows(self.path, split, columns, self.revision, self.task_name)
            keys = [*TEXTS[: len(columns) - 1], "label"]
            self._tables[split] = [dict(zip(keys, row.values(), strict=True)) for row in rows]
        return self._tables[split]


def require_task(name: str) -> None:
    """Refuse an unknown task.

    Raises:
        UsageError: Names the nearest known one.
    """
    if name not in GLUE_TASKS:
        raise UsageError(f"unknown GLUE task '{name}': {nearest(name, GLUE_TASKS)}")
