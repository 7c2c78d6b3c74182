"""The GLUE tasks: which rows the parts have, on the real data read by pyarrow and numpy, and on folders made here."""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from red_lightning.data import GLUE, GLUE_TASKS
from red_lightning.data.hub_rows import Row
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

COLUMNS = {
    "mnli": ["premise", "hypothesis"],
    "sst2": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "cola": ["sentence"],
    "qnli": ["question", "sentence"],
    "qqp": ["question1", "question2"],
    "rte": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
}
PAPER = {  # Table 8; the QQP of the reference material is cut down to 2,000 rows
    "mnli": (1_000, 8_815),
    "sst2": (436, 436),
    "mrpc": (204, 204),
    "cola": (522, 521),
    "qnli": (1_000, 4_463),
    "qqp": (1_000, 1_000),
    "rte": (139, 138),
    "stsb": (750, 750),
}
AUTHORS = {**PAPER, "rte": (138, 139)}
FROM_TRAIN = ["mnli", "qnli", "qqp", "sst2"]
TASKS = list(PAPER)
SEEDS = [42, 7]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def hub(shared: Path) -> Path:
    return shared / "hub/nyu-mll/glue"


def splits_name(task: str) -> str:
    return "validation_matched" if task == "mnli" else "validation"


@cache
def stored(hub: Path, task: str, split: str) -> tuple[tuple[Any, ...], ...]:
    """The rows of a Parquet file by their ``idx``: texts and, as the file says it, the label."""
    table = parquet.read_table(hub / task / f"{split}-00000-of-00001.parquet")
    names = class_names(table.schema)
    rows = sorted(table.to_pylist(), key=lambda row: row["idx"])
    assert [row["idx"] for row in rows] == list(range(len(rows)))
    texts = [tuple(row[column] for column in COLUMNS[task]) for row in rows]
    labels = [names[row["label"]] if names else row["label"] for row in rows]
    return tuple((*text, label) for text, label in zip(texts, labels, strict=True))


def class_names(schema: pyarrow.Schema) -> list[str]:
    label = json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]
    return label["names"] if label["_type"] == "ClassLabel" else []


def permuted(seed: int, rows: tuple[tuple[Any, ...], ...]) -> list[tuple[Any, ...]]:
    return [rows[index] for index in np.random.RandomState(seed).permutation(len(rows))]


def plain(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in ("text", "text_pair", "label") if key in row) for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_the_paper(task: str, seed: int, hub: Path) -> None:
    data = GLUE(task, str(hub), seed=seed)
    rows = stored(hub, task, splits_name(task))
    order, (validation, test) = permuted(seed, rows), PAPER[task]
    assert validation + test == len(rows)
    found = {split: plain(data.read(split)) for split in ("validation", "test")}  # type: ignore[arg-type]
    first, second = ("test", "validation") if task == "cola" else ("validation", "test")
    size = test if task == "cola" else validation
    assert found[first] == order[:size]
    assert found[second] == order[size:]
    assert Counter(found["validation"]) + Counter(found["test"]) == Counter(rows)


@pytest.mark.parametrize("task", TASKS)
def test_all_training_rows_are_used(task: str, hub: Path) -> None:
    assert plain(GLUE(task, str(hub), seed=42).read("train")) == list(stored(hub, task, "train"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_the_authors_roberta(task: str, seed: int, hub: Path) -> None:
    data = GLUE(task, str(hub), seed=seed, split_rule="authors")
    data.connect(build_tokenizer(), False)
    order, (validation, test) = permuted(seed, stored(hub, task, splits_name(task))), AUTHORS[task]
    swapped = task == "cola"
    assert plain(data.read("validation")) == (order[test:] if swapped else order[:validation])
    assert plain(data.read("test")) == (order[:test] if swapped else order[validation:])
    assert plain(data.read("train")) == list(stored(hub, task, "train"))


@pytest.mark.parametrize("task", FROM_TRAIN)
def test_the_authors_t5_validates_on_training_rows(task: str, hub: Path) -> None:
    data = GLUE(task, str(hub), seed=42, split_rule="authors")
    data.connect(build_tokenizer(), True)
    trained = stored(hub, task, "train")
    order = permuted(42, trained)
    validation, train = plain(data.read("validation")), plain(data.read("train"))
    assert validation == order[:1_000]
    assert len(train) == len(trained) - 1_000
    assert Counter(train) + Counter(validation) == Counter(trained)
    assert plain(data.read("test")) == list(stored(hub, task, splits_name(task)))


@pytest.mark.parametrize(
    ("task", "validation"), [("cola", 521), ("rte", 138), ("mrpc", 204), ("stsb", 750)], ids=lambda value: str(value)
)
def test_the_other_parts_of_the_authors_t5_are_not_swapped(task: str, validation: int, hub: Path) -> None:
    data = GLUE(task, str(hub), seed=42, split_rule="authors")
    data.connect(build_tokenizer(), True)
    order = permuted(42, stored(hub, task, "validation"))
    assert plain(data.read("validation")) == order[:validation]
    assert plain(data.read("test")) == order[validation:]
    assert plain(data.read("train")) == list(stored(hub, task, "train"))


@pytest.mark.parametrize("task", TASKS)
def test_an_encoder_decoder_gets_the_papers_parts_by_default(task: str, hub: Path) -> None:
    data = GLUE(task, str(hub), seed=42)
    data.connect(build_tokenizer(), True)
    assert (len(data.read("validation")), len(data.read("test"))) == PAPER[task]


@pytest.mark.parametrize("task", [task for task in TASKS if task != "stsb"])
def test_classes_have_the_names_and_numbers_of_the_hub(task: str, hub: Path) -> None:
    table = parquet.read_table(hub / task / f"{splits_name(task)}-00000-of-00001.parquet")
    names = class_names(table.schema)
    data = GLUE(task, str(hub), seed=42, eval_batch_size=512, max_length=8)
    assert data.label_names() == names == list(GLUE_TASKS[task].labels)
    data.connect(build_tokenizer(), False)
    data.setup("validate")
    assert data.labels == names
    numbers = table["label"].to_pylist()
    order = [numbers[index] for index in np.random.RandomState(42).permutation(len(numbers))]
    part = order[PAPER["cola"][1] :] if task == "cola" else order[: PAPER[task][0]]
    found = [
        (row, label)
        for batch in data.val_dataloader()
        for row, label in zip(batch["row"], batch["labels"].tolist(), strict=True)
    ]
    assert sorted(found) == list(enumerate(part))
    assert {batch["labels"].dtype for batch in data.val_dataloader()} == {torch.int64}


def test_similarities_are_numbers(hub: Path) -> None:
    data = GLUE("stsb", str(hub), seed=42, eval_batch_size=512)
    data.connect(build_tokenizer(), False)
    data.setup("test")
    assert data.labels == []
    rows = permuted(42, stored(hub, "stsb", "validation"))[750:]
    found = [
        (row, float(label))
        for batch in data.test_dataloader()
        for row, label in zip(batch["row"], batch["labels"], strict=True)
    ]
    assert sorted(found) == [(number, float(np.float32(row[-1]))) for number, row in enumerate(rows)]
    assert {batch["labels"].dtype for batch in data.test_dataloader()} == {torch.float32}


def test_the_first_metric_is_the_papers(shared: Path) -> None:
    import yaml

    splits = yaml.safe_load((shared / "paper/hyperparameters.yaml").read_text(encoding="utf-8"))["glue_splits"]
    names = {"matthews_correlation": "matthews"}
    assert {task: GLUE(task).metrics[0] for task in TASKS} == {
        task: names.get(split["metric"], split["metric"]) for task, split in splits.items()
    }
    assert list(GLUE_TASKS) == TASKS


def test_training_of_a_real_task(hub: Path) -> None:
    """Sizes, cut rows and class counts of a fit; rows that are in two parts are counted."""
    data = GLUE("rte", str(hub), seed=42, max_length=32, train_size=0.1)
    data.connect(build_tokenizer(), False)
    data.setup("fit")
    trained = stored(hub, "rte", "train")
    assert data.counts == {"train": round(len(trained) / 10), "validation": 139}
    shares = Counter(row[-1] for row in trained)
    assert list(data.label_counts) == ["entailment", "not_entailment"]
    for name, count in data.label_counts.items():
        assert abs(count - shares[name] / 10) < 1
    long = sum(
        len(data.tokenizer("\n".join(row[:-1]))["input_ids"]) > 32
        for row in permuted(42, stored(hub, "rte", "validation"))[:139]
    )
    assert 0 < long == data.cut["validation"]


def test_provenance(hub: Path) -> None:
    kept = GLUE("rte", str(hub), seed=7, split_rule="authors").provenance()
    assert kept == {
        "class": "GLUE",
        "path": str(hub),
        "revision": None,
        "commit": None,  # a folder has none
        "task": "rte",
        "held_out_by": {"seed": 7, "split_rule": "authors"},
    }


@pytest.mark.parametrize("task", ["sst2", "mrpc"])
def test_a_file_to_predict(task: str, hub: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    columns = COLUMNS[task]
    file.write_text(",".join(reversed(columns)) + "\n" + ",".join("ba"[: len(columns)]) + "\nd,c\n"[: 2 * len(columns)])
    data = GLUE(task, str(hub), predict_file=str(file))
    data.connect(build_tokenizer(), False)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    texts = [tuple(texts.values()) for _, texts in sorted(zip(batch["row"], batch["texts"], strict=True))]
    assert texts == ([("b",), ("d",)] if task == "sst2" else [("a", "b"), ("c", "d")])
    assert "labels" not in batch


def test_the_test_rows_are_predicted_by_default(hub: Path) -> None:
    data = GLUE("rte", str(hub), seed=42)
    assert plain(data.read("predict")) == permuted(42, stored(hub, "rte", "validation"))[139:]


def test_texts_to_predict_are_no_pairs(hub: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("A sentence.\n")
    data = GLUE("mrpc", str(hub), predict_file=str(file))
    with pytest.raises(UsageError, match="no column 'sentence2'"):
        data.read("predict")


def test_the_seed_of_the_run(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stored(hub, "rte", "validation")
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert plain(GLUE("rte", str(hub)).read("validation")) == permuted(42, rows)[:139]
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert plain(GLUE("rte", str(hub)).read("validation")) == permuted(11, rows)[:139]
    assert plain(GLUE("rte", str(hub), seed=0).read("validation")) == permuted(0, rows)[:139]


@pytest.mark.parametrize(("name", "meant"), [("mrcp", "mrpc"), ("MNLI", "mnli"), ("sst-2", "sst2"), ("sts-b", "stsb")])
def test_an_unknown_task_is_refused(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown GLUE task '{name}': did you mean '{meant}'\? known: cola, mnli, "):
        GLUE(name)


def write_hub(folder: Path, task: str, train: list[Row], validation: list[Row]) -> Path:
    """A folder laid out like the hub's repository, with one task."""
    names = {"qqp": ["not_duplicate", "duplicate"], "mrpc": ["not_equivalent", "equivalent"]}.get(task, [])
    label: dict[str, Any] = {"_type": "ClassLabel", "names": names} if names else {"_type": "Value", "dtype": "float32"}
    text = {"_type": "Value", "dtype": "string"}
    features = {**dict.fromkeys(COLUMNS[task], text), "label": label, "idx": {"_type": "Value", "dtype": "int32"}}
    kinds = [(column, pyarrow.string()) for column in COLUMNS[task]]
    kinds += [("label", pyarrow.int64() if names else pyarrow.float32()), ("idx", pyarrow.int32())]
    schema = pyarrow.schema(kinds, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    files = []
    for split, rows in (("train", train), (splits_name(task), validation)):
        (folder / task).mkdir(parents=True, exist_ok=True)
        numbered = [{**row, "idx": index} for index, row in enumerate(rows)]
        table = pyarrow.Table.from_pylist(numbered, schema=schema)
        parquet.write_table(table, folder / task / f"{split}-00000-of-00001.parquet")
        files.append(f"{{split: {split}, path: {task}/{split}-*}}")
    config = f"---\nconfigs:\n- {{config_name: {task}, data_files: [{', '.join(files)}]}}\n---\n"
    (folder / "README.md").write_text(config)
    return folder


def pairs(task: str, count: int) -> list[Row]:
    first, second = COLUMNS[task]
    return [{first: f"a{index}", second: f"b{index}", "label": index % 2} for index in range(count)]


def test_the_whole_qqp_gives_1000_and_39430_rows(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "qqp", pairs("qqp", 3), pairs("qqp", 40_430))
    data = GLUE("qqp", str(hub), seed=42)
    order = np.random.RandomState(42).permutation(40_430).tolist()
    assert [row["text"] for row in data.read("validation")] == [f"a{index}" for index in order[:1_000]]
    assert [row["text_pair"] for row in data.read("test")] == [f"b{index}" for index in order[1_000:]]
    assert len(data.read("test")) == 39_430


def test_an_empty_question_of_the_data_set_is_taken(tmp_path: Path) -> None:
    """Two training rows of the hub's QQP have no second question."""
    train = [*pairs("qqp", 3), {"question1": "How?", "question2": "", "label": 0}]
    data = GLUE(
        "qqp", str(write_hub(tmp_path / "glue", "qqp", train, pairs("qqp", 1_002))), seed=42, global_batch_size=4
    )
    data.connect(build_tokenizer(), False)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert {"text": "How?", "text_pair": ""} in batch["texts"]


def test_an_empty_text_of_the_users_file_is_refused(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "qqp", pairs("qqp", 3), pairs("qqp", 1_002))
    (tmp_path / "a.csv").write_text("question1,question2\na,b\nc,\n")
    data = GLUE("qqp", str(hub), predict_file=str(tmp_path / "a.csv"))
    data.connect(build_tokenizer(), False)
    with pytest.raises(UsageError, match=r"line 3 of '.*a.csv' has an empty 'question2'"):
        data.setup("predict")


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    train = [*pairs("qqp", 3), {"question1": "a", "question2": "b", "label": -1}]
    data = GLUE("qqp", str(write_hub(tmp_path / "glue", "qqp", train, pairs("qqp", 1_002))), seed=42)
    data.connect(build_tokenizer(), False)
    with pytest.raises(UsageError, match="row 4 of the train split has no label"):
        data.setup("fit")


@pytest.mark.parametrize("count", [2, 999, 1_000])
def test_too_few_rows_for_1000_are_refused(count: int, tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "qqp", pairs("qqp", 3), pairs("qqp", count))
    with pytest.raises(UsageError, match=rf"has {count} rows for the task qqp, .* 1000 validation rows .* whole\?"):
        GLUE("qqp", str(hub)).read("validation")


@pytest.mark.parametrize(("count", "validation"), [(408, 204), (407, 204), (406, 203), (9, 4), (2, 1)])
def test_a_cut_down_task_is_halved(count: int, validation: int, tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "mrpc", pairs("mrpc", 3), pairs("mrpc", count))
    data = GLUE("mrpc", str(hub), seed=1)
    order = [f"a{index}" for index in np.random.RandomState(1).permutation(count)]
    assert [row["text"] for row in data.read("validation")] == order[:validation]
    assert [row["text"] for row in data.read("test")] == order[validation:]


def test_one_row_cannot_be_divided(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "mrpc", pairs("mrpc", 3), pairs("mrpc", 1))
    data = GLUE("mrpc", str(hub), seed=1)
    data.connect(build_tokenizer(), False)
    with pytest.raises(UsageError, match="the validation split has no rows"):
        data.setup("fit")


def test_a_missing_task_is_named(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "glue", "mrpc", pairs("mrpc", 3), pairs("mrpc", 4))
    with pytest.raises(UsageError, match="no configuration 'qqp': known: mrpc"):
        GLUE("qqp", str(hub)).read("train")
