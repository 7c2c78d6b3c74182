"""Corpus BLEU as the E2E challenge reports it."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from sacrebleu.metrics import bleu as sacrebleu_bleu

from red_lightning.metrics.predictions import Row
from red_lightning.metrics.text_metric import TextMetric


def bleu(rows: Sequence[Row]) -> float:
    """Corpus BLEU-4 of sacrebleu: tokenizer ``13a``, lowercased, brevity held against the closest reference.

    Of two references equally close in length the shorter counts.

    Args:
        rows: At least one pair of prediction and references.

    Returns:
        A fraction from 0 to 1. Orders without a match are smoothed as `mteval-v13a.pl` does (``exp``).
    """
    # sacrebleu takes one stream per reference, None where a row has fewer; its types leave that out
    streams: Any = list(zip_longest(*(group for _, group in rows)))
    scorer = sacrebleu_bleu.BLEU(lowercase=True, tokenize="13a")
    return scorer.corpus_score([prediction for prediction, _ in rows], streams).score / 100


class BLEU(TextMetric):
    """Corpus BLEU-4, a fraction from 0 to 1; see `bleu`."""

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `bleu`."""
        return bleu(rows)
