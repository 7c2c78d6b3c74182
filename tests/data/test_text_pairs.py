"""The user's own files: which file stands for which split, and the automatic split."""

import json
from pathlib import Path
from typing import Any

import pytest

from red_lightning.data import TextPairs
from red_lightning.errors import UsageError
from tests.training import write_pairs


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "a.jsonl", [{"mr": "x", "ref": "y", "source": "other"}])
    data = TextPairs(validation_file=path, source_column="mr", target_column="ref")
    assert data.read("validation") == [{"source": "x", "target": "y"}]
    assert data.provenance()["columns"] == {"source": "mr", "target": "ref"}


def test_columns_by_one_option_and_what_is_not_used(tmp_path: Path) -> None:
    rows = [{"mr": f"x{n}", "ref": "y", "note": "z" * n} for n in range(4)]
    path = rows_file(tmp_path / "a.jsonl", [*rows, {"mr": "x"}, {"mr": "", "ref": "y"}])
    columns = {"source": "mr", "target": "ref"}
    data = TextPairs(validation_file=path, columns=columns, bad_rows="skip")
    assert data.read("validation") == [{"source": f"x{n}", "target": "y"} for n in range(4)]
    assert data.notes[0].startswith(f"2 of 6 rows of '{path}' are bad and left out: line 5 of")
    assert data.notes[1:] == ["columns that are not used: note (3 rows)"]
    assert data.provenance()["bad_rows"] == {path: 2} and data.provenance()["unused_columns"] == {"note": 3}
    with pytest.raises(UsageError, match=r"line 5 of .* has no column 'ref'"):
        TextPairs(validation_file=path, columns=columns).read("validation")
    with pytest.raises(UsageError, match="the key 'sorce', which is no column here; did you mean 'source'"):
        TextPairs(columns={"sorce": "mr"})
    with pytest.raises(UsageError, match=r"data\.columns says 'b' and data\.source_column 'a'"):
        TextPairs(source_column="a", columns={"source": "b"})


def test_one_column_may_be_source_and_target(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "a.jsonl", [{"text": "x"}])
    data = TextPairs(validation_file=path, source_column="text", target_column="text")
    assert data.read("validation") == [{"source": "x", "target": "x"}]


def test_whole_sources_are_held_out(tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "a.jsonl", 40, references=2))
    data = TextPairs(path, validation_share=0.25, seed=1)
    train, validation = data.read("train"), data.read("validation")
    trained, held = {row["source"] for row in train}, {row["source"] for row in validation}
    assert (len(trained), len(held)) == (30, 10)
    assert not trained & held
    assert (len(train), len(validation)) == (60, 20)
    everything = TextPairs(validation_file=path).read("validation")
    assert sorted(map(str, train + validation)) == sorted(map(str, everything))
    assert [row for row in everything if row in train] == train  # in the file's order


def test_the_split_depends_on_the_seed_only(tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "a.jsonl", 40))
    held = [
        TextPairs(path, seed=seed, global_batch_size=size).read("validation") for seed, size in ((1, 2), (1, 3), (2, 2))
    ]
    assert held[0] == held[1] != held[2]
    assert len(held[0]) == 4


def test_at_least_one_source_on_either_side(tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "a.jsonl", 2))
    for share in (0.01, 0.99):
        data = TextPairs(path, validation_share=share)
        assert len(data.read("train")) == len(data.read("validation")) == 1
    with pytest.raises(UsageError, match="one distinct source cannot be split"):
        TextPairs(str(write_pairs(tmp_path / "b.jsonl", 1, references=2))).read("train")


def test_given_files_are_taken_whole(tmp_path: Path) -> None:
    files = {name: str(write_pairs(tmp_path / f"{name}.jsonl", count)) for count, name in enumerate("abcd", start=3)}
    data = TextPairs(files["a"], files["b"], files["c"], files["d"])
    splits = ("train", "validation", "test", "predict")
    assert [len(data.read(split)) for split in splits] == [3, 4, 5, 6]
    assert list(data.read("predict")[0]) == ["source"]


def test_splits_that_stand_in_for_others(tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "a.jsonl", 10))
    data = TextPairs(path)
    assert data.read("predict") == data.read("test") == data.read("validation")
    data = TextPairs(path, test_file=path)
    assert data.read("predict") == data.read("test")
    assert len(data.read("test")) == 10


@pytest.mark.parametrize(("given", "split"), [("validation_file", "train"), ("train_file", "validation")])
def test_missing_files_are_asked_for(given: str, split: str, tmp_path: Path) -> None:
    path = str(write_pairs(tmp_path / "a.jsonl", 10))
    if given == "validation_file":
        with pytest.raises(UsageError, match=r"no train rows: give --data\.train_file"):
            TextPairs(validation_file=path).read("train")
    with pytest.raises(UsageError, match=r"no validation rows: give --data\.validation_file"):
        TextPairs().read("test")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="validation_share"):
        TextPairs("a.csv", validation_share=share)
