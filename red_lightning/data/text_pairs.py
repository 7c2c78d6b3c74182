"""Pairs of source and target texts from CSV, TSV, JSONL or Parquet files."""

from typing import Any

from red_lightning.data.held_out import ChangedRows, HeldOut
from red_lightning.data.hub_rows import Row
from red_lightning.data.local_files import FileRow, file_rows, renamed, standing_in
from red_lightning.data.pairs import PairsDataModule, Split
from red_lightning.data.resumable_loader import EpochBatches
from red_lightning.data.row_reports import BadRows, RowReport
from red_lightning.errors import UsageError
from red_lightning.tables import Quoting


class TextPairs(PairsDataModule):
    """Pairs of a source and a target text from files (``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; UTF-8).

    Rows with the same source are references of one another. Test decodes each distinct source once.

    Args:
        train_file: Training rows. Required by fit.
        validation_file: Validation rows. null holds out ``validation_share`` of the training sources.
        test_file: Test rows. null tests on the validation rows.
        predict_file: Rows to predict; the target column may be missing. null predicts the test rows.
        source_column: Column of the source text.
        target_column: Column of the target text.
        validation_share: Share of the distinct training sources held out, chosen by the seed.
        columns: The file's names of the columns ``source`` and ``target``, in place of the options above.
        bad_rows: ``stop`` at the first bad row, or ``skip`` bad rows, which are counted and named.
        quoting: Quotes in CSV and TSV files: ``none`` reads them as text (GLUE's own style), ``quoted`` fields may be
            quoted, ``auto`` is ``quoted`` but refuses a quoted field over lines that are rows by themselves.
        changed_rows: A training file that has changed since the checkpoint was trained: ``refuse`` it, or ``keep`` its
            held-out rows held out.
        **options: Those of :class:`PairsDataModule`.
    """

    def __init__(
        self,
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        predict_file: str | None = None,
        source_column: str = "source",
        target_column: str = "target",
        validation_share: float = 0.1,
        columns: dict[str, str] | None = None,
        bad_rows: BadRows = "stop",
        quoting: Quoting = "auto",
        changed_rows: ChangedRows = "refuse",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < validation_share < 1:
            raise UsageError(f"data.validation_share is {validation_share}, but must lie between 0 and 1")
        self.files = {
            "train": train_file,
            "validation": validation_file,
            "test": test_file,
            "predict": predict_file,
        }
        self.columns = renamed({"source": source_column, "target": target_column}, columns, ("source", "target"))
        self.report = RowReport(bad_rows, quoting)
        self.held_out = HeldOut(changed_rows)
        self._parts: dict[str, list[Row]] = {}
        self.validation_share = validation_share

    def read(self, split: Split) -> list[Row]:
        """Read a split from its file, or from the split that stands in for it."""
        source = standing_in(split, self.files)
        file = self.files[source]
        if file is None and (source == "train" or self.files["train"] is None):
            raise UsageError(f"there are no {source} rows: give --data.{source}_file")
        if source == "train" or file is None:
            return self._divided()[source]
        return self._load(file, with_target=source != "predict")

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed and the share, if sources are held out of the training file."""
        if self.files["validation"] is not None or self.files["train"] is None:
            return {}
        return {"seed": self.seed, "validation_share": self.validation_share}

    def provenance(self) -> dict[str, Any]:
        """The files and columns."""
        return {**super().provenance(), "files": self.files, "columns": self.columns}

    def _load(self, file: str, with_target: bool = True) -> list[Row]:
        columns = {name: self.columns[name] for name in (("source", "target") if with_target else ("source",))}
        rows = file_rows(file, [*columns.values()], self.report)
        named: list[Row] = [{name: row[column] for name, column in columns.items()} for row in rows]
        if with_target:
            return named
        return [FileRow(values, row.number, row.id) for values, row in zip(named, rows, strict=True)]

    def _divided(self) -> dict[str, list[Row]]:
        """The rows of the training file, which is read once, by split."""
        if not self._parts:
            file = str(self.files["train"])
            rows, whole = self._load(file), self.files["validation"] is not None
            self._parts = self.held_out.divide(
                rows,
                lambda: {"train": rows} if whole else self._split(rows),
                lambda row: row["source"],
                self.trained_content,
                file,
            )
        return self._parts

    def _split(self, rows: list[Row]) -> dict[str, list[Row]]:
        """Hold out whole sources, so that no validation input was trained on."""
        sources = list(dict.fromkeys(row["source"] for row in rows))
        if len(sources) < 2:
            raise UsageError("one distinct source cannot be split: give --data.validation_file")
        order = EpochBatches(len(sources), 1, self.seed).order()
        count = min(max(1, round(self.validation_share * len(sources))), len(sources) - 1)
        held = {sources[index] for index in order[:count]}
        parts: dict[str, list[Row]] = {"train": [], "validation": []}
        for row in rows:
            parts["validation" if row["source"] in held else "train"].append(row)
        return parts
