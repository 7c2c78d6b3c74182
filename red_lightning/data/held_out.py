"""Know a training file and its held-out rows by their content, so that they stay held out."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from red_lightning.data.hub_rows import Row
from red_lightning.errors import UsageError

ChangedRows = Literal["refuse", "keep"]
Parts = dict[str, list[Row]]

DIGITS = 16
"""Hexadecimal digits of a row's digest: 64 bits."""
PLACE = ("row", "where", "file", "id")
"""What of a row says where it is, and not what it is."""


def digest_of_row(row: Mapping[str, Any]) -> str:
    """Return a digest of the content of a row."""
    content = {key: value for key, value in row.items() if key not in PLACE}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGITS // 2).hexdigest()


class HeldOut:
    """The rows of a training file that are held out for other splits.

    Args:
        changed_rows: What becomes of a file that has changed since a checkpoint was trained: ``refuse`` it, or ``keep``
            the rows held out that were held out then.

    Attributes:
        content: What a checkpoint carries: ``rows`` (their number), ``digest`` (of the rows in any order), ``order``
            (of the rows in their order), and by split, as one text each, ``held_out`` (the sorted digests of its rows)
            and ``keys`` (those of what its rows are about). Empty before the file is divided.
        notes: What was found to have changed.
    """

    def __init__(self, changed_rows: ChangedRows = "refuse") -> None:
        self.changed_rows = changed_rows
        self.content: dict[str, Any] = {}
        self.notes: list[str] = []

    def divide(
        self,
        rows: Sequence[Row],
        divide: Callable[[], Parts],
        key: Callable[[Row], Any],
        known: Mapping[str, Any] | None,
        file: str,
    ) -> Parts:
        """Divide the rows of a training file into splits.

        Args:
            rows: All rows of the file.
            divide: Divides them by chance, as without a checkpoint.
            key: What a row is about (its text, source or prompt): new rows with the key of a held-out row are held out.
            known: The ``content`` of a checkpoint; empty without one, or if it is of version 0.1.0.
            file: The file, for errors.

        Returns:
            The rows of ``train`` and of each other split.

        Raises:
            UsageError: The file has changed since the checkpoint was trained.
        """
        digests = [digest_of_row(row) for row in rows]
        now = {"rows": len(rows), "digest": _digest(sorted(digests)), "order": _digest(digests)}
        if not known or known.get("order") == now["order"]:
            parts = divide()
        else:
            keys = {} if self._same(known, now, digests, file) else known["keys"]
            parts = _restored(rows, digests, known["held_out"], keys, key)
        by_row = {id(row): digest for row, digest in zip(rows, digests, strict=True)}
        held = {split: part for split, part in parts.items() if split != "train"}
        self.content = {
            **now,
            "held_out": {split: "".join(sorted(by_row[id(row)] for row in part)) for split, part in held.items()},
            "keys": {split: "".join(sorted({_key_digest(key, row) for row in part})) for split, part in held.items()},
        }
        return parts

    def provenance(self) -> dict[str, Any]:
        """Return the digests for results.json, without those of single rows."""
        held = {split: _digest(digests_of(own)) for split, own in self.content.get("held_out", {}).items()}
        known = {name: self.content[name] for name in ("rows", "digest", "order") if name in self.content}
        return {"content": {**known, "held_out": held}} if known else {}

    def _same(self, known: Mapping[str, Any], now: Mapping[str, Any], digests: list[str], file: str) -> bool:
        """Return whether the rows are the same in another order; refuse others, unless the user keeps them."""
        if known["digest"] == now["digest"]:
            self.notes = [f"the rows of '{file}' have another order than in the training; the same are held out"]
            return True
        held = Counter(digest for own in known["held_out"].values() for digest in digests_of(own))
        gone = (held - Counter(digests)).total()
        said = (
            f"'{file}' has changed since the checkpoint was trained: it had {known['rows']:,} rows and has "
            f"{now['rows']:,} now; {gone:,} of the {held.total():,} rows that were held out are gone"
        )
        if self.changed_rows == "refuse":
            raise UsageError(
                f"{said}. Give the file as it was, or --data.changed_rows keep to hold out the others of these rows "
                "and train on the rest"
            )
        self.notes = [f"{said}; the others stay held out"]
        return False


def _restored(
    rows: Sequence[Row],
    digests: Sequence[str],
    held_out: Mapping[str, str],
    keys: Mapping[str, str],
    key: Callable[[Row], Any],
) -> Parts:
    """Return the rows of each split by their digests, equal rows as often as they were held out, and by their keys."""
    left = {split: Counter(digests_of(own)) for split, own in held_out.items()}
    about = {digest: split for split, own in keys.items() for digest in digests_of(own)}
    parts: Parts = {"train": [], **{split: [] for split in held_out}}
    for row, digest in zip(rows, digests, strict=True):
        split = next((name for name, counts in left.items() if counts[digest] > 0), None)
        if split is not None:
            left[split][digest] -= 1
        else:
            split = about.get(_key_digest(key, row), "train") if about else "train"
        parts[split].append(row)
    return parts


def _key_digest(key: Callable[[Row], Any], row: Row) -> str:
    return digest_of_row({"key": key(row)})


def digests_of(digests: str) -> list[str]:
    """Return the digests that a text holds."""
    return [digests[at : at + DIGITS] for at in range(0, len(digests), DIGITS)]


def _digest(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()
