"""Pairs of a source text and a reference text: what every data-to-text data set is made of."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from red_lightning.data.collation import collate_for_decoding, collate_for_loss
from red_lightning.data.rows import Encoded, RowsDataModule, Split
from red_lightning.data.sources import Row, require_text
from red_lightning.errors import UsageError


class PairsDataModule(RowsDataModule):
    """Base of the data-to-text data modules. A subclass says where the rows of a split come from.

    It reads dictionaries with the texts ``source`` and ``target``; ``target`` may be missing in the ``predict`` split.
    Training and validation use every (source, target) row. Test and prediction use each distinct source once, with
    all its references. The task that is trained supplies the tokenizer, which must have an EOS token.

    Args:
        global_batch_size: Rows of one optimizer step over all processes and accumulated micro-batches.
        eval_batch_size: Rows of one batch of one process elsewhere; scores do not depend on it.
        max_source_length: Tokens of a source, its EOS included; longer ones are cut.
        max_target_length: Tokens of a target, its EOS included; longer ones are cut.
        **options: Those of :class:`RowsDataModule`.
    """

    examples = "E2E or TextPairs"

    def __init__(
        self,
        global_batch_size: int = 10,
        eval_batch_size: int = 16,
        max_source_length: int = 64,
        max_target_length: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(global_batch_size, eval_batch_size=eval_batch_size, **options)
        if max_source_length < 2 or max_target_length < 2:
            raise UsageError("data.max_source_length and data.max_target_length must be at least 2 (a token and EOS)")
        self.max_source_length, self.max_target_length = max_source_length, max_target_length

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, and how long a source may be."""
        return {**super().provenance(), "max_source_length": self.max_source_length}

    def check(self, split: Split, rows: list[Row]) -> None:
        """Refuse empty texts."""
        require_text(rows, f"the {split} split")

    def encode(self, split: Split, rows: list[Row]) -> list[Encoded]:
        """Token lists of a split: one entry per row, or per distinct source where texts are decoded."""
        if split in ("test", "predict"):
            references: dict[str, list[str]] = {}
            for row in rows:
                references.setdefault(row["source"], []).extend([row["target"]] if "target" in row else [])
            sources = self._tokens(list(references), self.max_source_length, split, special=True)
            return [
                {"row": number, "source": source, "text": text, "references": references[text]}
                for number, (source, text) in enumerate(zip(sources, references, strict=True))
            ]
        sources = self._tokens([row["source"] for row in rows], self.max_source_length, split, special=True)
        targets = self._tokens([row["target"] for row in rows], self.max_target_length, split, special=False)
        return [{"source": source, "target": target} for source, target in zip(sources, targets, strict=True)]

    def length(self, row: Encoded) -> int:
        """Tokens of source and target."""
        return len(row["source"]) + len(row.get("target", ()))

    def weight(self, row: Encoded) -> int:
        """Tokens of the target."""
        return len(row["target"])

    def collate(self, split: Split) -> Callable[[list[Encoded]], dict[str, Any]]:
        """Batches to decode in test and prediction, and for the loss elsewhere."""
        collate = collate_for_decoding if split in ("test", "predict") else collate_for_loss
        return partial(collate, pad_id=self.tokenizer.pad_token_id, encoder_decoder=self.encoder_decoder)

    def _tokens(self, texts: list[str], limit: int, split: Split, special: bool) -> list[list[int]]:
        """Tokens of each text, cut to the limit and ended by EOS (which the authors' code loses where it cuts)."""
        whole = ended(self.tokenizer, texts, special)
        self.cut[split] += sum(len(tokens) > limit for tokens in whole)
        return [cut_before_end(tokens, limit) for tokens in whole]


def ended(tokenizer: Any, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Tokens of each text, ended by one EOS.

    Args:
        tokenizer: A Hugging Face tokenizer with an EOS token.
        texts: The texts.
        special: Put the special tokens around a text that the tokenizer puts there.
    """
    eos = tokenizer.eos_token_id
    rows = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    return [[*(tokens[:-1] if tokens and tokens[-1] == eos else tokens), eos] for tokens in rows]


def cut_before_end(tokens: list[int], limit: int) -> list[int]:
    """At most ``limit`` tokens: the first ones, and the last, which ends the text."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - 1], tokens[-1]]
