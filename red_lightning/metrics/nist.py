"""NIST-5 (Doddington, 2002) as the E2E challenge reports it. No library computes it this way."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from math import exp, log, log2
from typing import Any, Literal, get_args

from red_lightning.errors import UsageError, nearest
from red_lightning.metrics.ngrams import Ngram, count_ngrams
from red_lightning.metrics.predictions import Row
from red_lightning.metrics.text_metric import TextMetric
from red_lightning.metrics.tokenization import mteval_tokens

LengthPenalty = Literal["pymteval", "mteval"]
LONGEST = 5
_BETA = log(2) / log(1.5) ** 2  # a corpus of two thirds of the references' length scores half


def nist(rows: Sequence[Row], length_penalty: LengthPenalty = "pymteval") -> float:
    """NIST over n-grams of 1 to 5 tokens (``13a``, lowercased), weighted by their information.

    The information comes from the references given.

    Args:
        rows: At least one pair of prediction and references.
        length_penalty: What the total length of the predictions is held against. ``pymteval``: the mean
            length of each row's references, summed over rows (`measure_scores.py --python`). ``mteval``: the
            length of all references divided by the largest number of references of a row
            (`mteval-v13a-sig.pl`, which pads rows with empty references; lenient where rows differ in their
            number of references). They differ only for predictions shorter than the references.

    Returns:
        The score, at least 0 and without an upper bound. 0 if all predictions are empty.

    Raises:
        UsageError: The name of the length penalty is not known.
    """
    _check(length_penalty)
    information = _information([mteval_tokens(text) for _, group in rows for text in group])
    gained, possible = [0.0] * LONGEST, [0] * LONGEST
    for prediction, group in rows:
        tokens = mteval_tokens(prediction)
        known: Counter[Ngram] = reduce(Counter.__or__, (_count(text) for text in group))
        for ngram, count in (count_ngrams(tokens, LONGEST) & known).items():
            gained[len(ngram) - 1] += count * information[ngram]
        for n in range(LONGEST):
            possible[n] += max(len(tokens) - n, 0)
    mean_gains = sum(gain / max(count, 1) for gain, count in zip(gained, possible, strict=True))
    return mean_gains * _penalty(possible[0], _reference_length(rows, length_penalty))


def _check(length_penalty: str) -> None:
    known = get_args(LengthPenalty)
    if length_penalty not in known:
        raise UsageError(f"No NIST length penalty '{length_penalty}'; {nearest(length_penalty, known)}")


def _count(text: str) -> Counter[Ngram]:
    return count_ngrams(mteval_tokens(text), LONGEST)


def _information(sentences: Iterable[Sequence[str]]) -> dict[Ngram, float]:
    """Bits the last token of each n-gram adds to the tokens before it."""
    counts: Counter[Ngram] = Counter()
    for tokens in sentences:
        counts.update(count_ngrams(tokens, LONGEST))
        counts[()] += len(tokens)
    return {ngram: log2(counts[ngram[:-1]] / count) for ngram, count in counts.items() if ngram}


def _reference_length(rows: Sequence[Row], length_penalty: LengthPenalty) -> float:
    lengths = [[len(mteval_tokens(text)) for text in group] for _, group in rows]
    if length_penalty == "mteval":
        return sum(map(sum, lengths)) / max(map(len, lengths))
    return sum(sum(group) / len(group) for group in lengths)


def _penalty(length: int, reference_length: float) -> float:
    if length == 0:
        return 0.0
    ratio = min(length / reference_length, 1.0) if reference_length else 1.0
    return exp(-_BETA * log(ratio) ** 2)


class NIST(TextMetric):
    """NIST-5; see `nist`.

    Args:
        length_penalty: ``pymteval`` or ``mteval``, see `nist`.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: The name of the length penalty is not known.
    """

    def __init__(self, length_penalty: LengthPenalty = "pymteval", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check(length_penalty)
        self.length_penalty = length_penalty

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `nist`."""
        return nist(rows, self.length_penalty)
