"""Reading rows from folders laid out like a hub repository; every bad one is named in one line."""

from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from red_lightning.data.hub_rows import hub_rows, require_text
from red_lightning.errors import UsageError

COLUMNS = ["source", "target"]


def test_empty_texts_name_their_row() -> None:
    rows = [{"source": "a", "target": "b"}, {"source": " \t", "target": "c"}]
    require_text(rows[:1], "the file")
    with pytest.raises(UsageError, match="row 2 of the file has an empty 'source'"):
        require_text(rows, "the file")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for datasets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def hub_folder(path: Path, text: str, rows: int = 3) -> Path:
    """A folder laid out like a hub repository with one split."""
    (path / "data").mkdir(parents=True, exist_ok=True)
    table = arrow.table({"source": [text] * rows, "target": [f"{text}{row}" for row in range(rows)]})
    parquet.write_table(table, path / "data/train-00000-of-00001.parquet")
    return path


def test_folders_of_one_name_keep_their_own_rows(own_cache: Path, tmp_path: Path) -> None:
    first, second = hub_folder(tmp_path / "a/pairs", "x"), hub_folder(tmp_path / "b/pairs", "y")
    for _ in range(2):
        for folder, text in ((first, "x"), (second, "y")):
            rows = hub_rows(str(folder), "train", COLUMNS)
            assert rows == [{"source": text, "target": f"{text}{row}"} for row in range(3)]


def test_a_changed_folder_gives_its_new_rows(own_cache: Path, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pairs", "x")
    assert hub_rows(str(folder), "train", ["source"])[0] == {"source": "x"}
    hub_folder(folder, "z", rows=4)
    assert hub_rows(str(folder), "train", ["source"]) == [{"source": "z"}] * 4


def test_bad_folders_are_named(own_cache: Path, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pairs", "x")
    damaged = hub_folder(tmp_path / "damaged", "x")
    file = next(damaged.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:50])
    (tmp_path / "empty").mkdir()
    (tmp_path / "malformed").mkdir()
    (tmp_path / "malformed/train.jsonl").write_text('{"source": "a"}\n{"source": \n')
    for path, split, column, complaint in (
        (folder, "test", "source", "split 'test'"),
        (folder, "train", "sourse", "did you mean 'source'?"),
        (damaged, "train", "source", "cannot be read"),
        (tmp_path / "empty", "train", "source", "cannot be read"),
        (tmp_path / "malformed", "train", "source", "cannot be read"),
        (tmp_path / "absent", "train", "source", "does not exist"),
    ):
        with pytest.raises(UsageError) as caught:
            hub_rows(str(path), split, [column])
        assert complaint in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def glue_folder(path: Path, tasks: dict[str, str]) -> Path:
    """A folder laid out like a hub repository, with a text for each configuration."""
    path.mkdir(parents=True, exist_ok=True)
    configs = []
    for task, text in tasks.items():
        (path / task).mkdir(exist_ok=True)
        parquet.write_table(arrow.table({"sentence": [f"{text} of {task}"]}), path / task / "train-0.parquet")
        configs.append(f"- {{config_name: {task}, data_files: [{{split: train, path: {task}/train-*}}]}}\n")
    (path / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return path


def test_configurations_keep_their_own_rows(own_cache: Path, tmp_path: Path) -> None:
    first = glue_folder(tmp_path / "a/glue", {"mrpc": "x", "rte": "y"})
    second = glue_folder(tmp_path / "b/glue", {"mrpc": "z", "rte": "y"})
    for _ in range(2):
        for folder, task, text in ((first, "mrpc", "x"), (first, "rte", "y"), (second, "mrpc", "z")):
            rows = hub_rows(str(folder), "train", ["sentence"], name=task)
            assert rows == [{"sentence": f"{text} of {task}"}]
    glue_folder(first, {"mrpc": "w", "rte": "y"})
    assert hub_rows(str(first), "train", ["sentence"], name="mrpc") == [{"sentence": "w of mrpc"}]


def test_bad_configurations_are_named(own_cache: Path, tmp_path: Path) -> None:
    folder, single = glue_folder(tmp_path / "glue", {"mrpc": "x", "rte": "y"}), hub_folder(tmp_path / "pairs", "x")
    for path, name, split, complaint in (
        (folder, "mprc", "train", "has no configuration 'mprc': did you mean 'mrpc'? known: mrpc, rte"),
        (folder, "x/../y", "train", "has no configuration 'x/../y': known: mrpc, rte"),
        (folder, None, "train", "has several configurations; name one of mrpc, rte"),
        (folder, "rte", "test", "split 'test' of the configuration 'rte' of the data set"),
        (single, "mrpc", "train", "has no configuration 'mrpc': known: default"),
    ):
        with pytest.raises(UsageError) as caught:
            hub_rows(str(path), split, ["sentence"], name=name)
        assert complaint in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_configuration_that_is_not_here_says_so(own_cache: Path) -> None:
    (own_cache / "nyu-mll___glue/mrpc").mkdir(parents=True)
    with pytest.raises(
        UsageError, match="the configuration 'rte' of the data set 'nyu-mll/glue' is not on this machine"
    ):
        hub_rows("nyu-mll/glue", "train", ["label"], name="rte")


def test_classes_come_as_their_names(own_cache: Path, tmp_path: Path) -> None:
    columns = {"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None], "score": [0.5, None, -1.0, 2.0]}
    label = ClassLabel(names=["ham", "spam"])
    features = Features({"text": Value("string"), "label": label, "score": Value("float32")})
    (tmp_path / "mail").mkdir()
    Dataset.from_dict(columns, features).to_parquet(tmp_path / "mail/train.parquet")
    rows = hub_rows(str(tmp_path / "mail"), "train", ["label", "score", "text"])
    assert [list(row.values()) for row in rows] == [
        ["spam", 0.5, "a"],
        ["ham", None, "b"],
        [None, -1.0, "c"],
        [None, 2.0, "d"],
    ]


@pytest.mark.parametrize(
    ("task", "split", "count", "labels"),
    [
        ("mrpc", "train", 3_668, {"not_equivalent", "equivalent"}),
        ("rte", "validation", 277, {"entailment", "not_entailment"}),
        ("mnli", "validation_matched", 9_815, {"entailment", "neutral", "contradiction"}),
        ("sst2", "validation", 872, {"negative", "positive"}),
    ],
)
def test_glue_has_named_classes(
    task: str, split: str, count: int, labels: set[str], own_cache: Path, shared: Path
) -> None:
    rows = hub_rows(str(shared / "hub/nyu-mll/glue"), split, ["label"], name=task)
    assert len(rows) == count
    assert {row["label"] for row in rows} == labels


def test_the_similarities_of_glue_are_numbers(own_cache: Path, shared: Path) -> None:
    rows = hub_rows(str(shared / "hub/nyu-mll/glue"), "train", ["sentence1", "label"], name="stsb")
    assert len(rows) == 5_749
    assert all(isinstance(row["label"], float) and 0 <= row["label"] <= 5 for row in rows)
    assert rows[0] == {"sentence1": "A plane is taking off.", "label": 5.0}
