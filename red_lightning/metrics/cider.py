"""CIDEr (Vedantam et al., 2015) as the COCO caption evaluation computes it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import exp, fsum, log, sqrt
from typing import NamedTuple

from red_lightning.metrics.ngrams import Ngram, count_ngrams
from red_lightning.metrics.predictions import Row
from red_lightning.metrics.text_metric import TextMetric
from red_lightning.metrics.tokenization import ptb_tokens

LONGEST = 4
SIGMA = 6.0  # tokens; the width of the Gaussian penalty on differences in length


class _Vector(NamedTuple):
    weights: list[dict[Ngram, float]]  # tf-idf per length of n-gram
    norms: list[float]
    length: int


def cider(rows: Sequence[Row]) -> float:
    """Mean over rows of the tf-idf cosine with each reference, on Penn Treebank n-grams of 1 to 4 tokens.

    A document is a row: the frequencies are those of the references given. One row alone has no information
    and scores 0.

    Args:
        rows: At least one pair of prediction and references.

    Returns:
        The score, from 0 to 10.
    """
    counted = [(_count(prediction), [_count(text) for text in group]) for prediction, group in rows]
    documents = Counter(ngram for _, group in counted for ngram in set().union(*group))
    scores = []
    for prediction, group in counted:
        vector = _weigh(prediction, documents, len(rows))
        scores.append(fsum(_similarity(vector, _weigh(text, documents, len(rows))) for text in group) / len(group))
    return 10 * fsum(scores) / len(rows)


def _count(text: str) -> Counter[Ngram]:
    # a token can hold a no-break space (a phone number), at which the official scorer splits it again
    return count_ngrams(" ".join(ptb_tokens(text)).split(), LONGEST)


def _weigh(counts: Counter[Ngram], documents: Counter[Ngram], rows: int) -> _Vector:
    weights: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
    for ngram, count in counts.items():
        weights[len(ngram) - 1][ngram] = count * (log(rows) - log(max(1, documents[ngram])))
    # as in the official scorer, the length of a sentence is its number of bigrams
    return _Vector(weights, [_norm(order.values()) for order in weights], sum(counts[n] for n in weights[1]))


def _norm(values: Iterable[float]) -> float:
    return sqrt(fsum(value * value for value in values))


def _similarity(prediction: _Vector, reference: _Vector) -> float:
    """Mean over the lengths of n-grams of the clipped cosine."""
    cosines = [
        fsum(min(weight, there.get(ngram, 0.0)) * there.get(ngram, 0.0) for ngram, weight in here.items())
        / (norm_here * norm_there or 1.0)
        for here, there, norm_here, norm_there in zip(
            prediction.weights, reference.weights, prediction.norms, reference.norms, strict=True
        )
    ]
    return exp(-((prediction.length - reference.length) ** 2) / (2 * SIGMA**2)) * fsum(cosines) / LONGEST


class CIDEr(TextMetric):
    """CIDEr, from 0 to 10; see `cider`."""

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `cider`."""
        return cider(rows)
