"""The user's own labelled texts: formats, classes and numbers, automatic splits, and what is refused."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from red_lightning.data import LabeledTexts
from red_lightning.data.row_data_module import Split
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

Table = list[dict[str, Any]]
PARTS: tuple[Split, ...] = ("train", "validation", "test")


def table(*labels: Any, start: int = 0) -> Table:
    return [{"text": f"t{index}", "label": label} for index, label in enumerate(labels, start=start)]


def write(path: Path, rows: Table) -> str:
    """Write rows in the format that the ending says, by other code than reads them."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def connected(train: str | None, stage: str = "fit", **options: Any) -> LabeledTexts:
    data = LabeledTexts(train, **{"seed": 1, "global_batch_size": 4, **options})
    data.connect(build_tokenizer(), False)
    data.setup(stage)
    return data


def refused(train: str | None, stage: str = "fit", **options: Any) -> str:
    with pytest.raises(UsageError) as error:
        connected(train, stage, **options)
    return str(error.value)


def texts(data: LabeledTexts, split: Split) -> list[str]:
    return [row["text"] for row in data.read(split)]


def labelled(data: LabeledTexts, split: str) -> dict[str, Any]:
    """The label in the batches for each text."""
    loader = {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}[split]()
    return {
        text["text"]: label
        for batch in loader
        for text, label in zip(batch["texts"], batch["labels"].tolist(), strict=True)
    }


ENDINGS = [".csv", ".tsv", ".jsonl", ".parquet"]
AWKWARD = ['a "quoted" text', "two\nlines", "a, comma", "a\ttab", "größe 漢", "  spaces around  "]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    rows = [{"id": 7, "review": text, "stars": label} for text in AWKWARD for label in ("bad", "good")]
    file = write(tmp_path / f"a{ending}", rows)
    data = connected(
        file, validation_file=file, test_file=file, text_column="review", label_column="stars", global_batch_size=5
    )
    assert data.labels == ["bad", "good"]
    assert data.read("train") == [{"text": row["review"], "label": row["stars"]} for row in rows]
    assert data.counts == {"train": 12, "validation": 12}
    seen = Counter(
        (text["text"], label)
        for batch in data.train_dataloader()
        for text, label in zip(batch["texts"], batch["labels"].tolist(), strict=True)
    )
    assert seen == Counter((row["review"], int(row["stars"] == "good")) for row in rows)
    assert data.metrics == ["accuracy", "macro_f1"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_whole_numbers_are_classes_in_numeric_order(ending: str, tmp_path: Path) -> None:
    labels = [10, 2, -1, 33, 2, 10, -1, 33] * 3
    data = connected(write(tmp_path / f"a{ending}", table(*labels)))
    assert data.labels == ["-1", "2", "10", "33"]
    order = [-1, 2, 10, 33]
    given = {f"t{index}": order.index(label) for index, label in enumerate(labels)}
    for split in ("train", "validation"):
        found = labelled(data, split)
        assert found
        assert found.items() <= given.items()


def test_spellings_of_one_number_have_a_fixed_order(tmp_path: Path) -> None:
    """Else their numbers would differ between runs, because a set's order does."""
    labels = ["1", "01", "001", "0001", "00001", "0", "00", "000"]
    data = connected(write(tmp_path / "a.csv", table(*labels * 3)))
    assert data.labels == ["0", "00", "000", "00001", "0001", "001", "01", "1"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_booleans_are_classes(ending: str, tmp_path: Path) -> None:
    data = connected(write(tmp_path / f"a{ending}", table(*[True, False] * 10)))
    assert data.labels == ["false", "true"]
    found = labelled(data, "train")
    assert found == {text: int(int(text[1:]) % 2 == 0) for text in found}


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_numbers_are_predicted_as_such(ending: str, tmp_path: Path) -> None:
    labels = [0.5, 1.0, -2.25, 3.0, 1e-3, 4.0, 5.5, 6.0, 7.0, 8.0]
    data = connected(write(tmp_path / f"a{ending}", table(*labels)))
    assert data.labels == []
    assert data.metrics == ["pearson", "spearman", "rmse", "mae"]
    assert data.label_counts == {}
    assert data.counts == {"train": 8, "validation": 1}
    found = {**labelled(data, "train"), **labelled(data, "validation")}
    assert len(found) == 9
    assert found == {text: pytest.approx(labels[int(text[1:])]) for text in found}
    assert {batch["labels"].dtype for batch in data.train_dataloader()} == {torch.float32}


def test_whole_numbers_with_a_point_are_classes(tmp_path: Path) -> None:
    """What a table of floats makes of classes once a label was missing."""
    data = connected(write(tmp_path / "a.jsonl", table(*[10.0, 2.0, 1.0] * 6)))
    assert data.labels == ["1.0", "2.0", "10.0"]


def test_regression_is_forced_either_way(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", table(*[1, 2, 3] * 6))
    assert connected(whole).labels == ["1", "2", "3"]
    data = connected(whole, regression=True)
    assert data.labels == []
    found = labelled(data, "train")
    assert found == {text: float(int(text[1:]) % 3 + 1) for text in found}
    parts = write(tmp_path / "parts.csv", table(*["0.5", "10.5", "2.5"] * 6))
    assert connected(parts).labels == []
    assert connected(parts, regression=False).labels == ["0.5", "2.5", "10.5"]
    mixed = write(tmp_path / "mixed.csv", table(*["0.5", "unknown", "2"] * 6))
    assert connected(mixed).labels == ["0.5", "2", "unknown"]


def test_given_labels_keep_their_order(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*["neg", "pos"] * 10))
    data = connected(file, labels=["pos", "neutral", "neg"])
    assert data.labels == ["pos", "neutral", "neg"]
    found = labelled(data, "train")
    assert found == {text: 2 if int(text[1:]) % 2 == 0 else 0 for text in found}
    assert data.label_counts == {"pos": 8, "neutral": 0, "neg": 8}


def test_blanks_around_labels_are_none(tmp_path: Path) -> None:
    data = connected(write(tmp_path / "a.csv", table(*["a", " a", "b ", "\tb"] * 5)))
    assert data.labels == ["a", "b"]


COUNTS = {"rare": 12, "some": 95, "common": 293}


def uneven(path: Path) -> str:
    labels = [name for name, count in COUNTS.items() for _ in range(count)]
    return write(path, table(*labels[::2], *labels[1::2]))


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.25, 0.1), (0.1, 0.3), (0.5, 0.25)])
def test_automatic_parts_keep_the_shares_of_the_classes(shares: tuple[float, float], tmp_path: Path) -> None:
    data = connected(uneven(tmp_path / "a.csv"), validation_share=shares[0], test_share=shares[1])
    wanted = {"validation": shares[0], "test": shares[1], "train": 1 - sum(shares)}
    total = sum(COUNTS.values())
    for split in PARTS:
        counts = Counter(row["label"] for row in data.read(split))
        assert counts.total() == round(wanted[split] * total)
        for name, count in COUNTS.items():
            assert abs(counts[name] - wanted[split] * count) <= 1
    assert data.label_counts == {
        name: Counter(row["label"] for row in data.read("train"))[name] for name in data.labels
    }


def test_automatic_parts_are_disjoint_and_whole(tmp_path: Path) -> None:
    data = connected(uneven(tmp_path / "a.csv"))
    total = sum(COUNTS.values())
    everything = [text for split in PARTS for text in texts(data, split)]
    assert len(everything) == total
    assert set(everything) == {f"t{index}" for index in range(total)}
    for split in PARTS:
        numbers = [int(text[1:]) for text in texts(data, split)]
        assert numbers == sorted(numbers)  # in the file's order


def test_automatic_parts_depend_on_the_seed_only(tmp_path: Path) -> None:
    file = uneven(tmp_path / "a.csv")
    held = {
        name: [texts(connected(file, **options), split) for split in PARTS]
        for name, options in {"a": {}, "b": {"global_batch_size": 7}, "c": {"train_size": 9}, "d": {"seed": 2}}.items()
    }
    assert held["a"] == held["b"] == held["c"]
    for first, second in zip(held["a"], held["d"], strict=True):
        assert first != second
        assert len(first) == len(second)


def test_automatic_parts_of_a_regression(tmp_path: Path) -> None:
    data = connected(write(tmp_path / "a.csv", table(*(index / 7 for index in range(50)))), test_share=0.2)
    assert [len(data.read(split)) for split in PARTS] == [35, 5, 10]
    everything = [text for split in PARTS for text in texts(data, split)]
    assert sorted(everything) == sorted(f"t{index}" for index in range(50))


def test_every_part_has_every_class_where_it_can(tmp_path: Path) -> None:
    """Three rows of each of many classes are the fewest that three parts can share."""
    data = connected(write(tmp_path / "a.csv", table(*(f"c{index % 400}" for index in range(1_200)))))
    for split in PARTS:
        assert Counter(row["label"] for row in data.read(split)) == Counter(f"c{index}" for index in range(400))


def test_files_of_their_own_are_taken_whole(tmp_path: Path) -> None:
    files = {
        name: write(tmp_path / f"{name}.csv", table(*["a", "b"] * count, start=10 * count))
        for count, name in enumerate(("train", "validation", "test"), start=2)
    }
    data = connected(files["train"], validation_file=files["validation"], test_file=files["test"])
    assert texts(data, "train") == [f"t{index}" for index in range(20, 24)]
    assert texts(data, "validation") == [f"t{index}" for index in range(30, 36)]
    assert texts(data, "test") == texts(data, "predict") == [f"t{index}" for index in range(40, 48)]


@pytest.mark.parametrize(("own", "held_out"), [("validation", "test"), ("test", "validation")])
def test_only_parts_without_a_file_are_held_out(own: Split, held_out: Split, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table(*["a", "b"] * 20))
    other = write(tmp_path / "other.csv", table(*["a", "b"] * 2, start=100))
    data = connected(train, **{f"{own}_file": other})
    assert texts(data, own) == ["t100", "t101", "t102", "t103"]
    assert len(texts(data, held_out)) == 4
    assert sorted(texts(data, held_out) + texts(data, "train")) == sorted(f"t{index}" for index in range(40))


def test_without_test_rows_the_validation_rows_are_tested(tmp_path: Path) -> None:
    data = connected(write(tmp_path / "a.csv", table(*["a", "b"] * 20)), test_share=0.0)
    assert texts(data, "test") == texts(data, "validation")
    assert (len(texts(data, "train")), len(texts(data, "validation"))) == (36, 4)


def test_pairs_of_texts(tmp_path: Path) -> None:
    rows = [{"first": f"a{index}", "second": f"b{index}", "same": "ny"[index % 2]} for index in range(20)]
    columns = {"text_column": "first", "text_pair_column": "second", "label_column": "same"}
    data = connected(write(tmp_path / "a.tsv", rows), **columns)
    for row in data.read("train"):
        index = int(row["text"][1:])
        assert row == {"text": f"a{index}", "text_pair": f"b{index}", "label": "ny"[index % 2]}
    assert data.provenance()["columns"] == {"text": "first", "text_pair": "second", "label": "same"}


def test_a_second_text_that_no_option_names_is_reported(tmp_path: Path) -> None:
    rows = [{"a": f"x{n}", "text_pair": "y", "stars": "ab"[n % 2]} for n in range(4)]
    file = write(tmp_path / "a.csv", rows)
    data = LabeledTexts(validation_file=file, columns={"text": "a", "label": "stars"})
    assert [row["text"] for row in data.read("validation")] == ["x0", "x1", "x2", "x3"]
    assert data.notes == ["columns that are not used: text_pair (4 rows)"]
    data = LabeledTexts(validation_file=file, columns={"text": "a", "text_pair": "text_pair", "label": "stars"})
    assert data.read("validation")[0] == {"text": "x0", "text_pair": "y", "label": "a"} and data.notes == []


def test_provenance(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table("a", "b"))
    assert LabeledTexts(file, test_file="b.csv", seed=3).provenance() == {
        "class": "LabeledTexts",
        "files": {"train": file, "validation": None, "test": "b.csv"},
        "columns": {"text": "text", "label": "label"},
        "held_out_by": {"seed": 3, "validation_share": 0.1, "rows": 2},
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "x\n\ny\n"), ("a.csv", "label,text\n,x\n?,y\n"), ("a.jsonl", '{"text":"x"}\n{"text":"y"}')],
)
def test_a_file_to_predict_needs_no_labels(name: str, content: str, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table(*["a", "b"] * 20))
    (tmp_path / name).write_text(content)
    data = connected(train, "predict", predict_file=str(tmp_path / name))
    (batch,) = data.predict_dataloader()
    assert sorted(zip(batch["row"], (row["text"] for row in batch["texts"]), strict=True)) == [(0, "x"), (1, "y")]
    assert "labels" not in batch


def test_a_file_of_pairs_to_predict(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("second,first\nb,a\n")
    (tmp_path / "a.txt").write_text("a\n")
    columns = {"text_column": "first", "text_pair_column": "second", "labels": ["n", "y"]}
    data = connected(None, "predict", predict_file=str(tmp_path / "a.csv"), **columns)
    (batch,) = data.predict_dataloader()
    assert batch["texts"] == [{"text": "a", "text_pair": "b"}]
    assert "no column 'second'" in refused(None, "predict", predict_file=str(tmp_path / "a.txt"), **columns)


def test_prediction_needs_no_training_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    data = connected(None, "predict", predict_file=str(tmp_path / "a.txt"))
    assert data.labels is None
    assert data.counts == {"predict": 1}


def test_rows_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table(*["a", "b"] * 3))
    validation = write(tmp_path / "validation.csv", table(*"baab", start=4))  # t4, t5 are trained on, t6, t7 not
    test = write(tmp_path / "test.csv", [*table("a"), *table("a"), *table("b", start=9)])  # t0 twice
    data = connected(train, validation_file=validation, test_file=test)
    assert data.warnings == [
        "2 of the 4 validation rows are training rows too",
        "2 of the 3 test rows are training rows too",
    ]


def test_pairs_are_the_same_if_both_texts_are(tmp_path: Path) -> None:
    def pairs(*rows: str) -> Table:
        return [{"text": first, "text_pair": second, "label": label} for first, second, label in rows]

    train = write(tmp_path / "train.csv", pairs("xy0", "zw1"))
    other = write(tmp_path / "other.csv", pairs("xw0", "zw0", "yx1"))
    data = connected(train, validation_file=other, test_file=train, text_pair_column="text_pair")
    assert data.warnings == [
        "1 of the 3 validation rows are training rows too",
        "2 of the 2 test rows are training rows too",
        "1 of the 2 test rows are validation rows too, by which the checkpoint is chosen",
    ]


def test_no_overlap_is_no_warning(tmp_path: Path) -> None:
    assert connected(uneven(tmp_path / "a.csv")).warnings == []


def test_overlap_is_counted_in_automatic_parts(tmp_path: Path) -> None:
    rows = [{"text": "the same" if index % 2 else f"t{index}", "label": "ab"[index // 2 % 2]} for index in range(80)]
    data = connected(write(tmp_path / "a.csv", rows))
    same = {split: texts(data, split).count("the same") for split in PARTS}
    assert sum(same.values()) == 40
    assert same["train"] > 0
    assert data.warnings[:-1] == [
        f"{same[split]} of the 8 {split} rows are training rows too" for split in PARTS[1:] if same[split]
    ]
    assert f"{same['test']} of the 8 test rows are validation rows too" in data.warnings[-1]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("label", "meant"), [("positiv", "positive"), ("Negative", "negative")])
def test_an_unknown_label_names_the_nearest(split: str, label: str, meant: str, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table(*["negative", "positive"] * 10))
    other = write(tmp_path / "other.csv", table("negative", "positive", label, start=50))
    stage = {"validation": "fit", "test": "test"}[split]
    message = refused(train, stage, **{f"{split}_file": other})
    assert f"row 3 of the {split} split has the label '{label}', which is none of the classes" in message
    assert f"did you mean '{meant}'? known: negative, positive" in message


def test_a_bad_test_file_is_refused_before_the_training(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table(*["a", "b"] * 10))
    assert "row 1 of the test split has the label 'c'" in refused(
        train, test_file=write(tmp_path / "test.csv", table("c", "a"))
    )


def test_a_training_label_outside_the_given_ones(tmp_path: Path) -> None:
    """The row is that of the file, although rows are held out."""
    train = write(tmp_path / "train.csv", table(*["a", "b"] * 10, "bb"))
    assert refused(train, labels=["a", "b"]).startswith(
        "row 21 of the train split has the label 'bb', which is none of the classes: did you mean 'b'?"
    )


@pytest.mark.parametrize(
    ("options", "least"),
    [({}, 3), ({"test_share": 0.0}, 2), ({"validation_file": "own"}, 2), ({"test_file": "own"}, 2)],
)
def test_a_class_needs_a_row_for_each_part(options: dict[str, Any], least: int, tmp_path: Path) -> None:
    own = write(tmp_path / "own.csv", table("a", "rare", start=90))
    options = {name: own if value == "own" else value for name, value in options.items()}
    few = write(tmp_path / "few.csv", table(*["a"] * 30, *["rare"] * (least - 1)))
    message = refused(few, **options)
    assert f"the class 'rare' has too few rows in '{few}' ({least - 1}) for the {least} splits made of it" in message
    enough = connected(write(tmp_path / "enough.csv", table(*["a"] * 30, *["rare"] * least)), **options)
    assert enough.label_counts["rare"] == 1


def test_with_files_of_their_own_one_row_of_a_class_is_enough(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", table("a", "b"))
    assert connected(train, validation_file=train, test_file=train).label_counts == {"a": 1, "b": 1}


@pytest.mark.parametrize("labels", [["0.5"], ["0.5", "0.7"]])
def test_numbers_too_few_for_the_parts(labels: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*labels))
    assert f"there are too few rows in '{file}' ({len(labels)}) for the 3 splits" in refused(file)


@pytest.mark.parametrize("labels", [["a"], ["a"] * 20, ["1"] * 20])
def test_one_class_is_nothing_to_learn(labels: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*labels))
    assert refused(file) == f"all rows of '{file}' have the label '{labels[0]}'; there is nothing to tell apart"


@pytest.mark.parametrize(
    ("ending", "label"), [(".csv", ""), (".csv", " \t"), (".jsonl", None), (".jsonl", float("nan"))]
)
@pytest.mark.parametrize("where", ["train", "validation"])
def test_a_missing_label_names_its_row(ending: str, label: Any, where: str, tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", table(*["a", "b"] * 10))
    bad = write(tmp_path / f"bad{ending}", table("a", "b", label, "a"))
    files = {"train": (bad, {}), "validation": (good, {"validation_file": bad})}[where]
    line = 4 if ending == ".csv" else 3
    assert f"line {line} of '{bad}' has an empty 'label'" in refused(files[0], **files[1])


def test_an_empty_text_names_the_row_and_column_of_the_file(tmp_path: Path) -> None:
    """Although rows are held out."""
    rows = [{"review": text, "label": "ab"[index % 2]} for index, text in enumerate([*"abcdefghijklmnopqrst", " "])]
    file = write(tmp_path / "a.csv", rows)
    assert f"line 22 of '{file}' has an empty 'review'" in refused(file, text_column="review")


def test_an_empty_second_text_is_refused(tmp_path: Path) -> None:
    rows = [{"text": "x", "other": "y" if index else "", "label": "ab"[index % 2]} for index in range(20)]
    file = write(tmp_path / "a.csv", rows)
    assert f"line 2 of '{file}' has an empty 'other'" in refused(file, text_pair_column="other")


@pytest.mark.parametrize(("stage", "split"), [("fit", "train"), ("validate", "validation"), ("test", "test")])
def test_missing_files_are_asked_for(stage: str, split: str, tmp_path: Path) -> None:
    assert f"there are no {split} rows: give --data.{split}_file" in refused(None, stage, labels=["a", "b"])


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_labels_must_be_known(stage: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table("a", "b"))
    assert "the labels are not known" in refused(None, stage, validation_file=file, test_file=file)


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [{"text": "x", "Label": "a"}])
    assert "no column 'label': did you mean 'Label'?" in refused(file)
    assert "no column 'txt': did you mean 'text'?" in refused(file, text_column="txt", label_column="Label")


@pytest.mark.parametrize(
    ("validation", "test"), [(0.5, 0.5), (0.9, 0.2), (1.0, 0.0), (0.0, 0.1), (-0.1, 0.1), (0.1, -0.1), (0.1, 1.5)]
)
def test_impossible_shares_are_refused(validation: float, test: float) -> None:
    with pytest.raises(UsageError, match=r"data\.(validation|test)_share"):
        LabeledTexts("a.csv", validation_share=validation, test_share=test)


@pytest.mark.parametrize(
    ("labels", "lost"), [(["a"] * 4 + ["b"] * 96, "rows of the class 'a'"), ([0.5, 1.5, 2.5, 3.5], "rows")]
)
def test_shares_that_leave_no_training_rows(labels: Sequence[Any], lost: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*labels))
    message = refused(file, validation_share=0.45, test_share=0.45)
    assert f"data.validation_share and data.test_share leave no training {lost} of '{file}'" in message


def test_a_share_beyond_what_the_other_part_left(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*"aaabbbb"))
    assert "leave no training rows of the class 'a'" in refused(file, validation_share=0.98, test_share=0.01)


@pytest.mark.parametrize("label", ["unknown", "nan", "inf", "1,5"])
def test_a_label_that_is_no_number_is_refused(label: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", table(*[1, 2] * 10, label, label, label))
    message = refused(file, regression=True)
    assert f"the label '{label}' in '{file}' is no number" in message
    good = write(tmp_path / "good.csv", table(*[1.5, 2.5] * 10))
    bad = write(tmp_path / "bad.csv", table("1.5", label))
    assert f"the label '{label}' in '{bad}' is no number" in refused(good, validation_file=bad)


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "a"]])
def test_given_labels_must_be_different_classes(labels: list[str]) -> None:
    with pytest.raises(UsageError, match=r"data\.labels must name two or more different classes"):
        LabeledTexts("a.csv", labels=labels)
