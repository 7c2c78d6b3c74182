"""The quickstart's data module: descriptions of restaurants."""

from typing import Any

from red_lightning.data.hub_rows import Row
from red_lightning.data.pairs import PairsDataModule, Split
from red_lightning.quickstart.corpus import restaurant_pairs


class Restaurants(PairsDataModule):
    """Descriptions of restaurants from the project's own grammar: 2,100 training pairs, 200 test sources.

    Test sources hold combinations of attributes that training never shows, with three references each.

    Args:
        grammar_seed: Another seed makes another data set.
        **options: Those of :class:`PairsDataModule`.
    """

    def __init__(self, grammar_seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.grammar_seed = grammar_seed

    def read(self, split: Split) -> list[Row]:
        """Make a split; prediction describes the test split."""
        records = restaurant_pairs("test" if split == "predict" else split, self.grammar_seed)
        return [{"source": record.source, "target": text} for record in records for text in record.references]

    def provenance(self) -> dict[str, Any]:
        """The grammar's seed."""
        return {**super().provenance(), "grammar_seed": self.grammar_seed}
