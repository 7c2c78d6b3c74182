"""Labelled texts from CSV, TSV, JSONL or Parquet files."""

from collections import Counter
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from red_lightning.data.held_out import ChangedRows, HeldOut
from red_lightning.data.hub_rows import Row
from red_lightning.data.label_names import Label, merge_alike, spelled
from red_lightning.data.local_files import file_rows, renamed
from red_lightning.data.row_data_module import Split
from red_lightning.data.row_reports import BadRows, RowReport
from red_lightning.data.subsets import subset
from red_lightning.data.text_classification import TEXTS, ClassificationDataModule, texts_of_row
from red_lightning.errors import UsageError, require_range
from red_lightning.tables import Quoting


class LabeledTexts(ClassificationDataModule):
    """Labelled texts, or pairs of texts, from files (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``; UTF-8).

    Splits without a file of their own are held out of the training file, stratified by class and chosen by the seed.

    Args:
        train_file: Training rows. Required by fit.
        validation_file: Validation rows. null holds out ``validation_share`` of the training file.
        test_file: Test rows. null holds out ``test_share`` of the training file.
        text_column: Column of the text.
        text_pair_column: Column of the second text. null for single texts.
        label_column: Column of the label.
        regression: Whether labels are numbers to predict. null decides by the labels: all numbers, and some with
            decimals.
        labels: Classes in the order of their indices. null uses those of the training file, sorted.
        validation_share: Share of the training file held out for validation.
        test_share: Share of the training file held out for the test. 0 tests on the validation rows.
        columns: The file's names of the columns ``text``, ``text_pair`` and ``label``, in place of the options above.
        bad_rows: ``stop`` at the first bad row, or ``skip`` bad rows, which are counted and named.
        quoting: Quotes in CSV and TSV files: ``none`` reads them as text (GLUE's own style), ``quoted`` fields may be
            quoted, ``auto`` is ``quoted`` but refuses a quoted field over lines that are rows by themselves.
        changed_rows: A training file that has changed since the checkpoint was trained: ``refuse`` it, or ``keep`` its
            held-out rows held out.
        **options: Those of :class:`ClassificationDataModule`.
    """

    def __init__(
        self,
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        text_column: str = "text",
        text_pair_column: str | None = None,
        label_column: str = "label",
        regression: bool | None = None,
        labels: list[Label] | None = None,
        validation_share: float = 0.1,
        test_share: float = 0.1,
        columns: dict[str, str] | None = None,
        bad_rows: BadRows = "stop",
        quoting: Quoting = "auto",
        changed_rows: ChangedRows = "refuse",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_range("data.validation_share", validation_share, 1e-6, 1)
        require_range("data.test_share", test_share, 0, 1)
        if validation_share + test_share >= 1:
            raise UsageError("data.validation_share and data.test_share leave no training rows; lower one of them")
        if labels and regression:
            raise UsageError("data.labels names classes, but data.regression says that labels are numbers; drop one")
        if labels is not None and len({*map(repr, labels)}) < max(2, len(labels)):
            given = ", ".join(map(str, labels)) or "none"
            raise UsageError(f"data.labels must name two or more different classes, not {given}")
        for name, column in {"text": text_column, "label": label_column}.items():
            if not isinstance(column, str) or not column:
                raise UsageError(f"data.{name}_column is {column}; give the name of a column")
        self.files = {"train": train_file, "validation": validation_file, "test": test_file}
        pair = {} if text_pair_column is None else {"text_pair": text_pair_column}
        self.columns = renamed({"text": text_column, "label": label_column, **pair}, columns, (*TEXTS, "label"))
        self.report = RowReport(bad_rows, quoting)
        self.held_out = HeldOut(changed_rows)
        self.regression, self.classes = regression, labels
        self.shares = {"validation": validation_share, "test": test_share}
        self._loaded: dict[str, list[Row]] = {}
        self._held_out: dict[str, list[Row]] = {}

    @property
    def metrics(self) -> list[str]:
        """Accuracy and macro F1 for classes, correlations and errors for numbers."""
        return ["accuracy", "macro_f1"] if self.labels else ["pearson", "spearman", "rmse", "mae"]

    @property
    def target_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training rows, if labels are numbers."""
        if self.labels != []:
            return super().target_scale
        numbers = [row["label"] for row in self._encoded["train"]]
        return fmean(numbers), pstdev(numbers)

    def text_columns(self) -> list[str]:
        """The columns of the texts."""
        return [self.columns[key] for key in TEXTS if key in self.columns]

    def label_names(self) -> list[str] | None:
        """The classes; empty for a regression; None without training rows and without ``labels``."""
        if self.regression:
            return []
        if self.classes is not None:
            known = {row["label"] for row in self._load("train")} if self._has_train_file() else self.trained_labels
            return [spelled(label, sorted(known or ()), "data.labels") for label in self.classes]
        if not self._has_train_file():
            return None
        names = {row["label"] for row in self._load("train")}
        if self.regression is None and _are_fractions(names):
            return []
        if self.regression is None:
            self._refuse_stray_labels()
        if len(names) < 2:
            raise UsageError(
                f"all rows of '{self.files['train']}' have the label '{min(names)}'; there is nothing to tell apart"
            )
        if len({name.casefold() for name in names}) < len(names):
            self.warnings.append(f"some labels of '{self.files['train']}' differ only in upper and lower case")
        if all(_is_number(name) for name in names):
            return sorted(names, key=lambda name: (float(name), name))
        return sorted(names)

    def read(self, split: Split) -> list[Row]:
        """Read a split from its file, or from the part of the training file that stands for it."""
        if split == "predict":
            return self.prediction_rows()
        if split == "test" and self.files["test"] is None and not self.shares["test"]:
            return self.read("validation")
        if split != "train" and self.files[split] is not None:
            return self._with_numbers(split, self._load(split))
        if self.files["train"] is None:
            raise UsageError(f"there are no {split} rows: give --data.{split}_file")
        if not self._held_out:
            rows, file = self._load("train"), str(self.files["train"])
            self._held_out = self.held_out.divide(
                rows, lambda: self._hold_out(rows), texts_of_row, self.trained_content, file
            )
        return self._with_numbers("train", self._held_out[split])

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed, the shares and the size of the training file, if rows are held out of it."""
        if not self._parts() or not self._has_train_file():
            return {}
        shares = {f"{part}_share": self.shares[part] for part in self._parts()}
        return {"seed": self.seed, **shares, "rows": len(self._load("train"))}

    def provenance(self) -> dict[str, Any]:
        """The files and columns."""
        return {**super().provenance(), "files": self.files, "columns": self.columns, "held_out_by": self.held_out_by}

    def _load(self, split: str) -> list[Row]:
        if split not in self._loaded:
            file = str(self.files[split])
            rows = file_rows(file, list(self.columns.values()), self.report)
            self._loaded[split] = [{key: row[column] for key, column in self.columns.items()} for row in rows]
            for row in self._loaded[split]:
                row["label"] = row["label"].strip()
            self._merge_labels(file, self._loaded[split])
        return self._loaded[split]

    def _merge_labels(self, file: str, rows: list[Row]) -> None:
        """Give labels that look alike one spelling, and say so."""
        names = Counter(row["label"] for row in rows)
        if self.regression or (self.regression is None and self.labels == []) or _are_fractions({*names}):
            return
        known = [label for label in self.classes or () if isinstance(label, str)] or self.trained_labels
        trained = known or [row["label"] for row in self._loaded.get("train", ()) if row not in rows]
        one = merge_alike(names, [*dict.fromkeys(trained)])
        for row in rows:
            row["label"] = one[row["label"]]
        for name, kept in one.items():
            if name != kept:
                self.warnings.append(
                    f"the label {name!a} of '{file}' looks like {kept!a}: {names[name]:,} rows are read as that"
                )

    def _refuse_stray_labels(self) -> None:
        """Refuse labels of which nearly all are numbers, some of them fractions: it is the others that are wrong."""
        rows = self._load("train")
        numbers = {row["label"] for row in rows if _is_number(row["label"])}
        strays = [(n, row["label"]) for n, row in enumerate(rows, start=1) if row["label"] not in numbers]
        if strays and len(strays) <= len(rows) / 10 and _are_fractions(numbers):
            number, label = strays[0]
            raise UsageError(
                f"{len(rows) - len(strays)} of the {len(rows)} labels in '{self.files['train']}' are numbers, but row "
                f"{number} has '{label}'; mend it, or give --data.regression false to take all for classes"
            )

    def _with_numbers(self, split: str, rows: list[Row]) -> list[Row]:
        """The rows, with labels as numbers where they are to be predicted as such."""
        if self.labels != []:
            return rows
        if split == "train" and len({row["label"] for row in self._load("train")}) == 1:
            raise UsageError(
                f"all rows of '{self.files[split]}' have the label {rows[0]['label']}; there is nothing to learn"
            )
        for row in rows:
            if not _is_number(row["label"]):
                raise UsageError(
                    f"the label '{row['label']}' in '{self.files[split]}' is no number; "
                    "mend it, or give --data.regression false"
                )
        return [{**row, "label": float(row["label"])} for row in rows]

    def _has_train_file(self) -> bool:
        """Whether there are training rows; a trained classifier does without."""
        file = self.files["train"]
        return file is not None and (self.trained_labels is None or Path(file).expanduser().is_file())

    def _parts(self) -> list[str]:
        """The splits that are held out of the training file."""
        return [name for name in ("test", "validation") if self.files[name] is None and self.shares[name]]

    def _hold_out(self, rows: list[Row]) -> dict[str, list[Row]]:
        """Divide the training file: the rows of each split that has no file of its own."""
        self.check_labels("train", rows)
        parts = self._parts()
        strata = [row["label"] for row in rows] if self.labels else [None] * len(rows)
        name, count = min(Counter(strata).items(), key=lambda item: item[1])
        if count <= len(parts):
            what = f"the class '{name}' has" if self.labels else "there are"
            raise UsageError(
                f"{what} too few rows in '{self.files['train']}' ({count}) for the {len(parts) + 1} splits made of it "
                f"({', '.join(['train', *parts])}); add rows, or give --data.validation_file and --data.test_file"
            )
        left, divided = list(range(len(rows))), {}
        for part in parts:
            size = min(max(round(self.shares[part] * len(rows)), len(set(strata))), len(left))
            chosen = {left[i] for i in subset(len(left), size, self.seed, [strata[row] for row in left])}
            divided[part] = [rows[row] for row in sorted(chosen)]
            left = [row for row in left if row not in chosen]
        kept = {strata[row] for row in left}
        if lost := [name for name in dict.fromkeys(strata) if name not in kept]:
            what = f"rows of the class '{lost[0]}'" if self.labels else "rows"
            raise UsageError(
                f"data.validation_share and data.test_share leave no training {what} of '{self.files['train']}'; "
                "lower one of them"
            )
        return {"train": [rows[row] for row in left], **divided}


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")  # False for NaN too
    except ValueError:
        return False


def _are_fractions(names: set[str]) -> bool:
    return all(_is_number(name) for name in names) and not all(float(name).is_integer() for name in names)
