"""Random, stratified subsets that depend on the seed only."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import torch

from red_lightning.errors import UsageError, require_range


def subset(count: int, size: int, seed: int, strata: Sequence[Hashable] | None = None) -> list[int]:
    """Choose some rows by chance.

    Args:
        count: Number of rows.
        size: Number of rows to choose.
        seed: The same seed chooses the same rows; a larger subset holds nearly all of a smaller one.
        strata: The class of each row. Each class keeps its share, and at least one row where ``size`` allows it.

    Returns:
        Row numbers, ascending.
    """
    classes = list(strata) if strata is not None else [None] * count
    left = _quotas(Counter(classes), size)
    chosen = []
    for row in torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003)).tolist():
        if left[classes[row]] > 0:
            left[classes[row]] -= 1
            chosen.append(row)
    return sorted(chosen)


def _quotas(counts: Counter[Hashable], size: int) -> dict[Hashable, int]:
    """How many rows each class gives, by largest remainders."""
    exact = {name: size * count / counts.total() for name, count in counts.items()}
    least = 1 if size >= len(counts) else 0
    quotas = {name: max(least, int(share)) for name, share in exact.items()}
    while (missing := size - sum(quotas.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [name for name in quotas if least <= quotas[name] + step <= counts[name]]
        name = max(movable, key=lambda name: step * (exact[name] - quotas[name]))
        quotas[name] += step
    return quotas


def train_rows(wanted: int | float, count: int) -> int:
    """The number of training rows that ``train_size`` means.

    Args:
        wanted: A whole number of rows, or a share between 0 and 1.
        count: Number of rows of the train split.

    Raises:
        UsageError: There are not so many rows, or the share is none.
    """
    if isinstance(wanted, int) or (wanted > 1 and wanted.is_integer()):
        if not 1 <= wanted <= count:
            raise UsageError(f"data.train_size is {wanted:.15g}, but the train split has {count} rows")
        return int(wanted)
    if not 0 < wanted <= 1:
        raise UsageError(f"data.train_size is {wanted}: give a whole number of rows, or a share between 0 and 1")
    return max(1, round(wanted * count))


def require_size(name: str, size: int | float) -> None:
    """Refuse what is neither a number of rows nor a share.

    Raises:
        UsageError: Names the option.
    """
    require_range(name, size, 1e-9)
    if size > 1 and int(size) != size:
        raise UsageError(f"{name} is {size}: give a whole number of rows, or a share between 0 and 1")


def hold_out(keys: Sequence[Hashable], sizes: Mapping[str, int | float], seed: int) -> dict[str, list[int]]:
    """Divide rows among the train split and others by chance; rows with the same key stay together.

    Args:
        keys: The key of each row.
        sizes: Rows of each other split: a whole number, or a share between 0 and 1 (0.1). Keys of several rows may make
            it larger. What a split gets does not depend on the size of those after it.
        seed: The same seed makes the same splits.

    Returns:
        Row numbers of ``train`` and of each other split, ascending.

    Raises:
        UsageError: Nothing is left to train on.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    groups = list(rows_of.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed * 1_000_003)).tolist()
    parts: dict[str, list[int]] = {}
    for name, size in sizes.items():
        wanted = size if isinstance(size, int) or size > 1 else max(1, round(size * len(keys)))
        parts[name] = []
        while order and len(parts[name]) < wanted:
            parts[name] += groups[order.pop()]
    if not order:
        raise UsageError(
            f"the training split has too few different prompts ({len(groups)}) to train on after "
            + " and ".join(f"data.{name}_size {size}" for name, size in sizes.items())
            + "; give more rows, or lower that"
        )
    return {
        "train": sorted(row for group in order for row in groups[group]),
        **{n: sorted(p) for n, p in parts.items()},
    }
