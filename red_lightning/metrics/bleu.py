"""Corpus BLEU as the E2E challenge reports it."""

from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU as SacreBLEU

from red_lightning.metrics.rows import Row
from red_lightning.metrics.text_metric import TextMetric


def bleu(rows: Sequence[Row]) -> float:
    """Corpus BLEU-4 of sacrebleu: tokenizer ``13a``, lowercased, of references equally close in length the shorter.

    Args:
        rows: At least one pair of prediction and references.

    Returns:
        A fraction from 0 to 1. Orders without a match are smoothed as `mteval-v13a.pl` does (``exp``).
    """
    most = max(len(group) for _, group in rows)
    streams = [[group[i] if i < len(group) else None for _, group in rows] for i in range(most)]
    scorer = SacreBLEU(lowercase=True, tokenize="13a")
    return scorer.corpus_score([prediction for prediction, _ in rows], streams).score / 100


class BLEU(TextMetric):
    """Corpus BLEU-4, a fraction from 0 to 1; see `bleu`."""

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `bleu`."""
        return bleu(rows)
