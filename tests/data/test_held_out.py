"""Rows that are held out stay held out by their content, whatever becomes of the file."""

import csv
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from red_lightning.data import Instructions, LabeledTexts, TextPairs
from red_lightning.data.held_out import DIGITS, HeldOut, digest_of_row, digests_of
from red_lightning.data.row_data_module import RowsDataModule
from red_lightning.errors import UsageError

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(60)]
PAIRS = [{"source": f"source {n // 2}", "target": f"target {n}"} for n in range(60)]
TURNS = [{"prompt": f"prompt {n // 2}", "response": f"response {n}"} for n in range(60)]
KINDS: dict[str, tuple[Any, list[dict[str, str]]]] = {
    "texts": (LabeledTexts, ROWS),
    "pairs": (TextPairs, PAIRS),
    "instructions": (Instructions, TURNS),
}


def write(path: Path, rows: list[dict[str, str]]) -> str:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parts_of(kind: Any, file: str, known: dict[str, Any] | None = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A data module, as after a checkpoint was recalled, and the content of the rows of its splits."""
    data: RowsDataModule = kind(file, **options)
    if known is not None:
        data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(content=known, labels=["a", "b"]))  # type: ignore[assignment]
    data.labels = ["a", "b"]  # type: ignore[attr-defined]
    splits = ("train", "validation", "test") if kind is LabeledTexts else ("train", "validation")
    return data, {split: sorted(map(digest_of_row, data.read(split))) for split in splits}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KINDS)
def test_sorting_a_file_does_not_change_its_splits(name: str, tmp_path: Path) -> None:
    kind, rows = KINDS[name]
    data, before = parts_of(kind, write(tmp_path / "a.jsonl", rows))
    known = data.held_out.content
    shuffled = random.Random(0).sample(rows, len(rows))
    again, after = parts_of(kind, write(tmp_path / "b.jsonl", shuffled), known)
    assert after == before and "have another order than in the training" in again.held_out.notes[0]
    assert again.held_out.content["digest"] == known["digest"] != again.held_out.content["order"]
    same, plain = parts_of(kind, write(tmp_path / "c.jsonl", rows), known)
    assert plain == before and not same.held_out.notes and same.held_out.content == known


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_refused_or_its_held_out_rows_are_kept(name: str, tmp_path: Path) -> None:
    kind, rows = KINDS[name]
    data, before = parts_of(kind, write(tmp_path / "a.jsonl", rows))
    known = data.held_out.content
    about, other = [*rows[0]]
    held = {key_of(row) for row in data.read("validation")}
    sample = next(row for row in rows if row[about] in held)
    grown = [
        *rows,
        {about: "new", other: rows[0][other]},
        {**sample, other: rows[1][other]},
    ]  # one about a held-out row
    for changed in (grown, rows[:-1], [{**rows[0], about: "edited"}, *rows[1:]]):
        with pytest.raises(UsageError, match=r"has changed since the checkpoint was trained: it had 60 rows"):
            parts_of(kind, write(tmp_path / "b.jsonl", changed), known)
    kept, after = parts_of(kind, write(tmp_path / "b.jsonl", grown), known, changed_rows="keep")
    assert all({*before[split]} <= {*after[split]} for split in before if split != "train")
    assert sum(map(len, after.values())) == len(grown) and len(after["train"]) >= len(before["train"]) + 1
    trained = {key_of(row) for row in kept.read("train")}
    assert "new" in trained
    assert not any(key_of(row) in trained for split in before if split != "train" for row in kept.read(split))
    assert "had 60 rows and has 62 now; 0 of the" in kept.held_out.notes[0]


def key_of(row: dict[str, Any]) -> str:
    """What a row is about."""
    return str(row["messages"][0]["content"]) if "messages" in row else str(row.get("text", row.get("source")))


def test_a_digest_is_of_the_content_alone() -> None:
    row = {"text": "é\ud800", "label": "a"}
    assert digest_of_row(row) == digest_of_row({"label": "a", "row": 3, "where": "x", "file": "y", **row})
    assert digest_of_row(row) != digest_of_row({**row, "label": "b"}) and len(digest_of_row(row)) == DIGITS
    assert digests_of("a" * DIGITS + "b" * DIGITS) == ["a" * DIGITS, "b" * DIGITS]
    assert HeldOut().provenance() == {}


def test_checkpoints_without_contents_are_unknown(tmp_path: Path) -> None:
    for name, (kind, rows) in KINDS.items():
        file = write(tmp_path / f"{name}.jsonl", rows)
        assert parts_of(kind, file)[1] == parts_of(kind, file, {})[1]
