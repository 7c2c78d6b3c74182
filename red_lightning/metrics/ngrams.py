"""N-gram counts for NIST and CIDEr."""

from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]


def count_ngrams(tokens: Sequence[str], longest: int) -> Counter[Ngram]:
    """Count all n-grams of lengths 1 to `longest`.

    Args:
        tokens: The tokens of one sentence.
        longest: The greatest length counted.

    Returns:
        How often each n-gram occurs.
    """
    return Counter(
        tuple(tokens[start : start + n]) for n in range(1, longest + 1) for start in range(len(tokens) - n + 1)
    )
