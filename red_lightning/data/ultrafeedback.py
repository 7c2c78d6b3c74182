"""UltraFeedback (Cui et al. 2023): the paper's instructions (section 4.4), each with its best answer."""

from collections.abc import Callable
from typing import Any

from red_lightning.data.conversations import ConversationsDataModule
from red_lightning.data.hub_rows import Row, hub_table
from red_lightning.data.messages import require_conversation
from red_lightning.data.provenance import hub_provenance
from red_lightning.data.row_data_module import Split
from red_lightning.data.subsets import require_size
from red_lightning.errors import UsageError

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
"""What each answer was rated for."""


class UltraFeedback(ConversationsDataModule):
    """UltraFeedback: each instruction with its answer of the highest mean rating (paper, section 4.4).

    Reads data sets with chosen answers (a column ``chosen``), and ``openbmb/UltraFeedback`` itself with four rated
    answers per row (a column ``completions``). Validation rows are held out of the training split, and test rows too if
    there is no split ``test_sft`` or ``test``. Prediction answers the test prompts.

    Args:
        path: Hub id, or a local folder with the same layout.
        revision: Branch, tag or commit on the hub. Revisions of the default data set before 6221885 contain prompts of
            TruthfulQA.
        test_size: Number or share of rows held out for the test if the data set has no test split.
        **options: Those of :class:`ConversationsDataModule`.
    """

    def __init__(
        self,
        path: str = "HuggingFaceH4/ultrafeedback_binarized",
        revision: str | None = None,
        test_size: int | float = 1000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_size("data.test_size", test_size)
        self.path, self.revision, self.test_size = path, revision, test_size
        self._rows: dict[str, list[Row]] = {}

    def read(self, split: Split) -> list[Row]:
        """Read a split, or the rows of the training split that are held out for it."""
        if not self._rows:
            self._rows = self._read()
        return self._rows["test" if split == "predict" else split]

    @property
    def held_out_by(self) -> dict[str, Any]:
        """The seed and the sizes."""
        return {"seed": self.seed, "validation_size": self.validation_size, "test_size": self.test_size}

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, with the resolved commit."""
        return {**super().provenance(), **hub_provenance(self.path, self.revision), "held_out_by": self.held_out_by}

    def _read(self) -> dict[str, list[Row]]:
        tables = hub_table(self.path, None, self.revision)
        train = self._first(tables, "train_sft", "train")
        if train is None:
            raise UsageError(
                f"the data set '{self.path}' has no split 'train_sft' or 'train', but {', '.join(tables)}; give "
                "--data.path HuggingFaceH4/ultrafeedback_binarized or openbmb/UltraFeedback"
            )
        test = self._first(tables, "test_sft", "test")
        sizes = {"validation": self.validation_size}
        parts = self.divide(train, sizes if test is not None else {"test": self.test_size, **sizes})
        return parts if test is None else {**parts, "test": test}

    def _first(self, tables: Any, *splits: str) -> list[Row] | None:
        """The conversations of the first of some splits that the data set has; None if it has none of them."""
        split = next((split for split in splits if split in tables), None)
        if split is None:
            return None
        columns = tables[split].column_names
        layout = next((wanted for wanted in LAYOUTS if {*wanted} <= {*columns}), None)
        if layout is None:
            raise UsageError(
                f"the split '{split}' of the data set '{self.path}' has the columns {', '.join(columns)}, but "
                "UltraFeedback has 'chosen', or 'instruction' and 'completions'; read other data with Instructions"
            )
        rows: list[Row] = []
        for number, record in enumerate(tables[split].select_columns(list(layout))):
            messages, where = LAYOUTS[layout](record), f"row {number + 1} of the split '{split}' of '{self.path}'"
            if _has_texts(messages):
                require_conversation(messages, where, may_ask=False)
                rows.append({"messages": messages, "row": number, "where": where})
        if lost := len(tables[split]) - len(rows):
            self.warnings.append(f"rows of '{split}' left out, as a prompt or an answer is empty: {lost:,}")
        return rows


def best_answer(completions: list[dict[str, Any]]) -> str:
    """The answer of the highest mean rating; of equally good ones the first; empty if there is none.

    Args:
        completions: Dictionaries with ``response`` and ``annotations``, which hold a ``Rating`` of each aspect.
    """
    best = max(completions, key=mean_rating, default={})
    return best.get("response") or ""


def mean_rating(completion: dict[str, Any]) -> float:
    """The mean of the ratings of an answer, each a number as text; others (``N/A``) do not count. 0 if none is."""
    annotations = completion.get("annotations") or {}
    given = [str((annotations.get(aspect) or {}).get("Rating")) for aspect in ASPECTS]
    ratings = [float(rating) for rating in given if rating.replace(".", "", 1).isdecimal()]
    return sum(ratings) / max(1, len(ratings))


def _rated(record: Row) -> list[dict[str, str]]:
    answer = best_answer(record["completions"] or [])
    return [{"role": "user", "content": record["instruction"]}, {"role": "assistant", "content": answer}]


def _has_texts(messages: Any) -> bool:
    """Whether all messages have a text. What is no list of messages is refused later."""
    known = [m["content"] for m in messages if "content" in m] if isinstance(messages, list) else []
    return all(text is not None and str(text).strip() for text in known)


LAYOUTS: dict[tuple[str, ...], Callable[[Row], list[dict[str, str]]]] = {
    ("chosen",): lambda record: record["chosen"],
    ("instruction", "completions"): _rated,
}
"""The columns of each layout, and what makes a conversation of them."""
