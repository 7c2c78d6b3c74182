"""The E2E NLG Challenge (Novikova et al. 2017)."""

from typing import Any

from red_lightning.data.hub_rows import Row, hub_rows
from red_lightning.data.pairs import PairsDataModule, Split
from red_lightning.data.provenance import hub_provenance


class E2E(PairsDataModule):
    """E2E with the paper's protocol (appendix A.2): 42,061 training, 4,672 validation and 4,693 test rows.

    The source is the raw meaning representation, as in the authors' code. Test decodes each of the 630 distinct meaning
    representations once.

    Args:
        path: Hub id, or a local folder with the same layout.
        revision: Branch, tag or commit on the hub. The main branch holds a script, which datasets >= 4 refuses.
        **options: Those of :class:`PairsDataModule`.
    """

    def __init__(
        self,
        path: str = "tuetschek/e2e_nlg",
        revision: str | None = "refs/convert/parquet",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.revision = path, revision

    def read(self, split: Split) -> list[Row]:
        """Read a split; prediction describes the test split."""
        columns = ("meaning_representation", "human_reference")
        rows = hub_rows(self.path, "test" if split == "predict" else split, columns, self.revision)
        return [{"source": row[columns[0]], "target": row[columns[1]]} for row in rows]

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, with the resolved commit."""
        return {**super().provenance(), **hub_provenance(self.path, self.revision)}
