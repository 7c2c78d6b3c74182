"""ROUGE-L (Lin, 2004) as the COCO caption evaluation defines it."""

from collections.abc import Sequence
from math import fsum

from red_lightning.metrics.predictions import Row
from red_lightning.metrics.text_metric import TextMetric
from red_lightning.metrics.tokenization import ptb_tokens

BETA = 1.2  # recall weighs this much more than precision


def rouge_l(rows: Sequence[Row]) -> float:
    """Mean over rows of the F-score of the longest common subsequence, on Penn Treebank tokens.

    Precision and recall are each the best over the references, not necessarily of the same one.

    Args:
        rows: At least one pair of prediction and references.

    Returns:
        A fraction from 0 to 1.
    """
    return fsum(_f_score(prediction, group) for prediction, group in rows) / len(rows)


def _f_score(prediction: str, group: Sequence[str]) -> float:
    # an empty sentence counts as one empty token, so it matches another empty one and nothing else
    predicted = ptb_tokens(prediction) or ("",)
    references = [ptb_tokens(text) or ("",) for text in group]
    common = [_common_length(predicted, reference) for reference in references]
    precision = max(common) / len(predicted)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if token == other else max(above, lengths[j - 1])
            diagonal = above
    return lengths[-1]


class ROUGEL(TextMetric):
    """ROUGE-L, a fraction from 0 to 1; see `rouge_l`."""

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `rouge_l`."""
        return rouge_l(rows)
