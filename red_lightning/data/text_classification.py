"""Base of the classification data modules: texts, or pairs of texts, with a label."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch

from red_lightning.data.collation import pad
from red_lightning.data.control_tokens import encode_texts
from red_lightning.data.hub_rows import Row, require_text
from red_lightning.data.local_files import file_rows
from red_lightning.data.row_data_module import Encoded, RowsDataModule, Split
from red_lightning.errors import UsageError, nearest, require_range

TEXTS = ("text", "text_pair")
"""The keys of a row's texts."""


class ClassificationDataModule(RowsDataModule):
    """Base of the classification data modules. A subclass knows the labels and reads the rows of a split.

    A row has a ``text``, an optional ``text_pair`` and a ``label``: the name of a class, or a number (regression).

    Args:
        global_batch_size: Rows per optimizer step, over all processes and accumulated micro-batches.
        max_length: Maximum number of tokens of a text or a pair of texts, including special tokens. Longer ones are cut
            and counted (authors' code: 256).
        predict_file: File of texts to predict: ``.txt`` with one per line (blank lines are skipped), or ``.csv``,
            ``.tsv``, ``.jsonl`` or ``.parquet`` with the text columns. null predicts the test rows.
        **options: Those of :class:`RowsDataModule`.
    """

    examples = "GLUE or LabeledTexts"

    def __init__(
        self, global_batch_size: int = 32, max_length: int = 256, predict_file: str | None = None, **options: Any
    ) -> None:
        super().__init__(global_batch_size, **options)
        require_range("data.max_length", max_length, 8)
        self.max_length, self.predict_file = max_length, predict_file
        self.labels: list[str] | None = None
        self.trained_labels: list[str] | None = None

    @abstractmethod
    def label_names(self) -> list[str] | None:
        """The classes in the order of their numbers; empty if labels are numbers; None if the data do not say."""

    @abstractmethod
    def text_columns(self) -> list[str]:
        """The columns of a prediction file that hold the text and, if there is one, the second text."""

    @property
    @abstractmethod
    def metrics(self) -> list[str]:
        """The metrics by which this data set is judged; the first chooses the best checkpoint."""

    @property
    def target_scale(self) -> tuple[float, float]:
        """Mean and standard deviation by which numbers are standardised for the loss."""
        return 0.0, 1.0

    @property
    def encoding(self) -> dict[str, Any]:
        """The maximum length."""
        return {"max_length": self.max_length}

    @property
    def label_counts(self) -> dict[str, int]:
        """Training rows of each class."""
        counts = Counter(row["label"] for row in self._encoded["train"])
        return {name: counts[index] for index, name in enumerate(self.labels or ())}

    def setup(self, stage: str) -> None:
        """Find out the labels, then read and tokenize the splits that a stage needs."""
        self.warnings = []
        self.trained_labels = getattr(self._task, "labels", None)
        predicts_file = stage == "predict" and self.predict_file is not None
        self.labels = None if predicts_file and self.trained_labels is not None else self.label_names()
        if self.labels is None:
            self.labels = self.trained_labels
        if self.labels is None and stage != "predict":
            raise UsageError("the labels are not known: give --data.train_file or --ckpt_path")
        super().setup(stage)
        if stage == "fit":
            self._warn_of_overlap()

    def check(self, split: Split, rows: list[Row]) -> None:
        """Refuse empty texts and labels that are no label."""
        require_text([{key: row[key] for key in TEXTS if key in row} for row in rows], f"the {split} split")
        self.check_labels(split, rows)

    def check_labels(self, split: Split, rows: list[Row]) -> None:
        """Refuse labels that are no label."""
        for number, row in enumerate(rows, start=1):
            if split != "predict" and row.get("label") is None:
                raise UsageError(f"row {number} of the {split} split has no label")
            if self.labels and row.get("label") is not None and row["label"] not in self.labels:
                raise UsageError(
                    f"row {number} of the {split} split has the label '{row['label']}', which is none of the classes: "
                    f"{nearest(str(row['label']), self.labels)}"
                )

    def strata(self, rows: list[Row]) -> list[Hashable] | None:
        """The classes; numbers have none."""
        return [row["label"] for row in rows] if self.labels else None

    def encode(self, split: Split, rows: list[Row]) -> list[Encoded]:
        """Token lists, label numbers and texts of the rows."""
        columns = self._tokens(split, rows)
        numbers = {name: index for index, name in enumerate(self.labels or ())}
        encoded = []
        for index, row in enumerate(rows):
            label = row.get("label")
            encoded.append(
                {
                    **{key: values[index] for key, values in columns.items()},
                    "row": index,
                    "texts": {key: row[key] for key in TEXTS if key in row},
                    "label": numbers.get(label, label) if label is not None else None,
                }
            )
        return encoded

    def length(self, row: Encoded) -> int:
        """Tokens of the text or pair."""
        return len(row["input_ids"])

    def collate(self, split: Split) -> Callable[[list[Encoded]], dict[str, Any]]:
        """Padded batches."""
        return partial(collate_texts, pad_id=self.tokenizer.pad_token_id)

    def prediction_rows(self) -> list[Row]:
        """The rows of the prediction file, or else of the test split."""
        if self.predict_file is None:
            return self.read("test")
        columns = self.text_columns()
        rows = file_rows(self.predict_file, columns, self.report)
        named = [{key: row[column] for key, column in zip(TEXTS, columns, strict=False)} for row in rows]
        self.asked = {number: [row.identity] for number, row in enumerate(rows)}
        return named

    def _tokens(self, split: Split, rows: list[Row]) -> dict[str, list[list[int]]]:
        """The tokenizer's columns; texts beyond the limit are counted and cut, the longer one of a pair first."""
        texts = [[row[key] for row in rows] for key in TEXTS if key in rows[0]]
        if len(texts) == 2 and not _separates(self.tokenizer):
            texts[1] = [f"\n{second}" for second in texts[1]]
        options = {"truncation": True, "add_special_tokens": True, "verbose": False, "return_attention_mask": False}
        columns = dict(encode_texts(self.tokenizer, *texts, max_length=self.max_length + 1, **options))
        long = [index for index, tokens in enumerate(columns["input_ids"]) if len(tokens) > self.max_length]
        self.cut[split] = len(long)
        if long:
            cut = ([text[index] for index in long] for text in texts)
            short = encode_texts(self.tokenizer, *cut, max_length=self.max_length, **options)
            for key, values in columns.items():
                for index, tokens in zip(long, short[key], strict=True):
                    values[index] = tokens
        return {key: columns[key] for key in ("input_ids", "token_type_ids") if key in columns}

    def _warn_of_overlap(self) -> None:
        trained, validated = ({_texts(row) for row in self._encoded[s]} for s in ("train", "validation"))
        splits: tuple[Split, ...] = ("validation", "test")
        for split in splits:
            rows = self._encoded.get(split) or [{"texts": row} for row in self.checked_rows(split)]
            if shared := sum(_texts(row) in trained for row in rows):
                self.warnings.append(f"{shared:,} of the {len(rows):,} {split} rows are training rows too")
            if split == "test" and (shared := sum(_texts(row) in validated for row in rows)):
                chosen = "validation rows too, by which the checkpoint is chosen"
                self.warnings.append(f"{shared:,} of the {len(rows):,} test rows are {chosen}")


def collate_texts(rows: list[Encoded], pad_id: int) -> dict[str, Any]:
    """A batch of texts.

    Args:
        rows: Dictionaries with the token list ``input_ids``, perhaps ``token_type_ids``, a ``label`` (a class number,
            a float, or None), ``row`` and ``texts``.
        pad_id: The padding token; padding is on the right, and always masked.

    Returns:
        ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids`` (int64, shape (rows, tokens)), ``labels``
        (shape (rows,); int64 for classes, float32 for numbers; missing if a row has none), and the lists
        ``label_values`` (the labels), ``row`` and ``texts``.
    """
    lists = [row["input_ids"] for row in rows]
    batch: dict[str, Any] = {
        "input_ids": pad(lists, pad_id),
        "attention_mask": pad([[1] * len(tokens) for tokens in lists], 0),
        "row": [row["row"] for row in rows],
        "texts": [row["texts"] for row in rows],
    }
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = pad([row["token_type_ids"] for row in rows], 0)
    labels = [row["label"] for row in rows]
    if all(label is not None for label in labels):
        batch["labels"] = torch.tensor(labels, dtype=torch.float32 if isinstance(labels[0], float) else torch.int64)
        batch["label_values"] = batch["labels"].tolist()  # where no one has to wait for a GPU
    return batch


def _separates(tokenizer: Any) -> bool:
    """Whether the tokenizer puts something between the texts of a pair (GPT-2's does not)."""
    return bool(tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False))


def texts_of_row(row: Row) -> tuple[str, ...]:
    """Return the text or the texts of a row."""
    return tuple(row[key] for key in TEXTS if key in row)


def _texts(row: Encoded) -> tuple[str, ...]:
    return tuple(row["texts"][key] for key in TEXTS if key in row["texts"])
