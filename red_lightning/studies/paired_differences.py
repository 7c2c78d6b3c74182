"""Paired differences between two rows of a table, with confidence intervals.

Two runs with the same seed see the same splits, so they are compared with each other. Over seeds, the interval is
Student's (1908): a bootstrap of a handful of seeds is far too short, and excludes 0 whenever all differences have one
sign. Over test rows, where both runs left their predictions, it is a bootstrap (Efron 1979), rows drawn with
replacement. With both, the squares of the two half-widths add.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
COVERAGE = 0.95
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t for 1 to 10 degrees of freedom: within it lies :data:`COVERAGE` of the distribution."""

Array = NDArray[Any]
Score = Callable[[Array, Array, Array], float]


@dataclass(frozen=True)
class Difference:
    """How far a row lies above another one in one column, in the table's units.

    Attributes:
        mean: Mean of the paired differences.
        low: Lower end of the interval; None where one pair without predictions leaves it open.
        high: Upper end.
        pairs: Number of pairs (seeds); the interval of one pair is over test rows alone.
        rows: Whether test rows were drawn.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    rows: bool

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def compare(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    predictions: Sequence[tuple[Path, Path]] = (),
    metric: str = "",
    factor: float = 1.0,
) -> Difference | None:
    """Compare two rows in one column.

    Args:
        ours: Seed -> score.
        theirs: That of the row to compare with; seeds that one of them lacks are left out.
        predictions: For each seed of both, in order, the files of test predictions; none for seeds alone.
        metric: What is measured on them.
        factor: By what the table multiplies the metric.

    Returns:
        None if they share no seed.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds])
    generator = np.random.default_rng(0)
    pools = [_row_draws(*files, metric, generator) for files in predictions] if len(predictions) == len(seeds) else []
    by_rows = bool(pools) and all(pool is not None for pool in pools)
    draws = factor * np.stack([pool for pool in pools if pool is not None]) if by_rows else None
    low, high = interval(differences, draws) or (None, None)
    return Difference(float(differences.mean()), low, high, len(seeds), by_rows)


def interval(differences: Array, draws: Array | None = None) -> tuple[float, float] | None:
    """The interval of a mean of paired differences.

    Args:
        differences: That of each seed, shape (seeds,).
        draws: The same on drawn test rows, shape (seeds, draws). The seeds share most of their test rows, so what the
            rows add is not taken to be less for more seeds.

    Returns:
        Its ends; None for one seed without draws.
    """
    count = len(differences)
    squares = 0.0
    if count > 1:
        squares += float(student(count - 1) ** 2 * differences.var(ddof=1) / count)
    elif draws is None:
        return None
    if draws is not None:
        squares += float((NormalDist().inv_cdf((1 + COVERAGE) / 2) * draws.std(axis=1).mean()) ** 2)
    mean = float(differences.mean())
    return mean - squares**0.5, mean + squares**0.5


def student(freedom: int) -> float:
    """Student's t; beyond the table by the expansion of Abramowitz and Stegun (1964), 26.7.5."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NormalDist().inv_cdf((1 + COVERAGE) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def accuracy(labels: Array, references: Array, weights: Array) -> float:
    """The share of equal ones; arrays of shape (kinds of rows,), the weights count the rows of each kind."""
    return float(np.average(labels == references, weights=weights))


def pearson(values: Array, references: Array, weights: Array) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    covariance = np.cov(values, references, fweights=weights, ddof=0)
    spread = float(np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return float(covariance[0, 1]) / spread if spread > 0 else 0.0


def matthews(labels: Array, references: Array, weights: Array) -> float:
    """Matthews' correlation, for more than two classes that of Gorodkin (2004), by the counts of the confusion."""
    size = int(max(labels.max(), references.max())) + 1
    confusion = np.bincount(references * size + labels, weights, minlength=size * size).reshape(size, size)
    true, predicted, count = confusion.sum(1), confusion.sum(0), confusion.sum()
    spread = float(np.sqrt((count**2 - predicted @ predicted) * (count**2 - true @ true)))
    return float(confusion.trace() * count - true @ predicted) / spread if spread > 0 else 0.0


SCORES: dict[str, Score] = {"accuracy": accuracy, "matthews": matthews, "pearson": pearson}
"""The metrics that are measured again on drawn rows; the intervals of others are over seeds alone."""


def _row_draws(ours: Path, theirs: Path, metric: str, generator: np.random.Generator) -> Array | None:
    """Differences on test rows drawn with replacement: shape (draws,); None if that cannot be done."""
    if metric not in SCORES or not (ours.is_file() and theirs.is_file()):
        return None
    (mine, truth), (other, other_truth) = _read(ours), _read(theirs)
    if not mine or truth != other_truth or "missing" in truth:
        return None
    # equal rows are one kind, so that a draw is one of a multinomial
    kinds, counts = np.unique(np.stack(_numbers(metric, mine, other, truth)), axis=1, return_counts=True)
    (labels, others, references), score = kinds, SCORES[metric]
    draws = generator.multinomial(len(truth), counts / len(truth), size=DRAWS)
    return np.array([score(labels, references, w) - score(others, references, w) for w in draws])


def _read(path: Path) -> tuple[list[Any], list[Any]]:
    """Answers and references of a file of predictions, in the order of its rows."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [line.get("label") for line in lines], [line.get("reference", "missing") for line in lines]


def _numbers(metric: str, *columns: list[Any]) -> list[Array]:
    """Classes as numbers (an answer that is none of them is a class too); numbers as they are."""
    if metric == "pearson":
        return [np.array([0.0 if value is None else value for value in column]) for column in columns]
    number = {name: index for index, name in enumerate(dict.fromkeys(value for column in columns for value in column))}
    return [np.array([number[value] for value in column]) for column in columns]
