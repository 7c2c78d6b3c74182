"""Base of the data-to-text data modules: pairs of a source and a reference text."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch

from red_lightning.data.collation import collate_for_decoding, collate_for_loss
from red_lightning.data.control_tokens import encode_texts
from red_lightning.data.hub_rows import Row, require_text
from red_lightning.data.packing import collate_packed
from red_lightning.data.row_data_module import Encoded, RowsDataModule, Split
from red_lightning.data.source_groups import collate_encoded_once, collate_shared, whole_groups
from red_lightning.errors import UsageError


class PairsDataModule(RowsDataModule):
    """Base of the data-to-text data modules. A subclass reads the rows of a split.

    A row is a dictionary with the texts ``source`` and ``target``; ``target`` may be missing in the ``predict`` split.
    Training and validation use every row. Test and prediction use each distinct source once, with all its references.
    The task supplies the tokenizer, which must have an EOS token.

    Args:
        global_batch_size: Rows per optimizer step, over all processes and accumulated micro-batches.
        eval_batch_size: Rows per batch and process in validation, test and prediction. Scores do not depend on it.
        max_source_length: Maximum number of tokens of a source, including EOS. Longer sources are cut and counted.
        max_target_length: Maximum number of tokens of a target, including EOS. Longer targets are cut and counted.
        packing: Pack the rows of a micro-batch into a few sequences without padding, in which targets share a common
            source. The loss is the same. For decoders.
        share_sources: Batch rows with the same source together and prefill the source once for all of them. Other rows
            then share a batch, so results differ as much as between two seeds. Validation always shares sources if it
            can, because its loss does not depend on batches.
        **options: Those of :class:`RowsDataModule`.
    """

    examples = "E2E or TextPairs"

    def __init__(
        self,
        global_batch_size: int = 10,
        eval_batch_size: int = 16,
        max_source_length: int = 64,
        max_target_length: int = 100,
        packing: bool = False,
        share_sources: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(global_batch_size, eval_batch_size=eval_batch_size, **options)
        if max_source_length < 2 or max_target_length < 2:
            raise UsageError("data.max_source_length and data.max_target_length must be at least 2 (a token and EOS)")
        if share_sources and self.group_by_length:
            raise UsageError("data.share_sources and data.group_by_length want different rows in a batch: give one")
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.packing, self.share_sources = packing, share_sources
        self.shares = False  # until a task says that its backbone can read a source once for all of its targets

    @property
    def encoding(self) -> dict[str, Any]:
        """The maximum lengths."""
        return {"max_source_length": self.max_source_length, "max_target_length": self.max_target_length}

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
            asked: dict[str, list[dict[str, Any]]] = {}
            for row in rows:
                references.setdefault(row["source"], []).extend([row["target"]] if "target" in row else [])
                asked.setdefault(row["source"], []).append(getattr(row, "identity", {}))
            if split == "predict":
                self.asked = {n: one for n, one in enumerate(asked.values()) if "row" in one[0]}
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

    def evaluation_order(self, split: Split, rows: list[Encoded]) -> list[Encoded]:
        """Rows of one source share a batch in validation, if it is read once for all of them; else of like length."""
        if split != "validation" or not self.shares:
            return super().evaluation_order(split, rows)
        if self.encoder_decoder:  # which pads
            return sorted(rows, key=lambda row: (len(row["source"]), row["source"], len(row["target"])))
        order = whole_groups(_sources(rows), self.eval_batch_size, torch.Generator().manual_seed(0))
        return [rows[index] for index in order]

    def groups(self, rows: list[Encoded]) -> list[Hashable] | None:
        """The sources of the training rows, if they share them."""
        return _sources(rows) if self.share_sources else None

    def collate(self, split: Split) -> Callable[[list[Encoded]], dict[str, Any]]:
        """Batches to decode in test and prediction, and for the loss elsewhere."""
        pad_id, encoder_decoder = self.tokenizer.pad_token_id, self.encoder_decoder
        if split in ("test", "predict"):
            return partial(collate_for_decoding, pad_id=pad_id, encoder_decoder=encoder_decoder)
        if self.shares and (split == "validation" or self.packing or self.share_sources):
            return partial(collate_encoded_once if encoder_decoder else collate_shared, pad_id=pad_id)
        if split == "train" and self.packing:
            return _collate_packed
        return partial(collate_for_loss, pad_id=pad_id, encoder_decoder=encoder_decoder)

    def _tokens(self, texts: list[str], limit: int, split: Split, special: bool) -> list[list[int]]:
        """Tokens of each text, cut to the limit and ended by EOS (which the authors' code loses where it cuts)."""
        whole = ended(self.tokenizer, texts, special)
        self.cut[split] += sum(len(tokens) > limit for tokens in whole)
        return [cut_before_end(tokens, limit) for tokens in whole]


def _sources(rows: list[Encoded]) -> list[Hashable]:
    """The source of each row."""
    return [tuple(row["source"]) for row in rows]


def _collate_packed(rows: Sequence[Encoded]) -> dict[str, Any]:
    """One packed row, whose bounds transformers finds by itself."""
    learned = [(len(row["source"]), len(row["source"]) + len(row["target"])) for row in rows]
    tokens = [[*row["source"], *row["target"]] for row in rows]
    return collate_packed(
        [{**row, "tokens": t, "learned": [span]} for row, t, span in zip(rows, tokens, learned, strict=True)]
    )


def ended(tokenizer: Any, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Tokens of each text, ended by one EOS. Control tokens that a text spells are text.

    Args:
        tokenizer: A Hugging Face tokenizer with an EOS token.
        texts: The texts.
        special: Put the special tokens around a text that the tokenizer puts there.
    """
    eos = tokenizer.eos_token_id
    rows = encode_texts(tokenizer, list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    return [[*(tokens[:-1] if tokens and tokens[-1] == eos else tokens), eos] for tokens in rows]


def cut_before_end(tokens: list[int], limit: int) -> list[int]:
    """At most ``limit`` tokens: the first ones, and the last, which ends the text."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - 1], tokens[-1]]
