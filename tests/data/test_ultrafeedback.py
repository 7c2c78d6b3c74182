"""UltraFeedback as chosen answers and as four rated ones, made here and real."""

from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from transformers import AutoTokenizer

from red_lightning.data import UltraFeedback
from red_lightning.data.collation import IGNORED
from red_lightning.data.ultrafeedback import best_answer, mean_rating
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

ASPECTS = ["instruction_following", "honesty", "truthfulness", "helpfulness"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache for datasets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def completion(response: str, *ratings: Any) -> dict[str, Any]:
    """An answer as openbmb/UltraFeedback stores it."""
    annotations = {name: {"Rating": r, "Rationale": "so"} for name, r in zip(ASPECTS, ratings, strict=True)}
    return {"model": "m", "response": response, "overall_score": 10.0, "annotations": annotations}


def folder(path: Path, **splits: list[dict[str, Any]]) -> str:
    """A folder laid out like a hub repository."""
    (path / "data").mkdir(parents=True)
    for name, rows in splits.items():
        parquet.write_table(arrow.Table.from_pylist(rows), path / f"data/{name}-00000-of-00001.parquet")
    files = "\n".join(f"  - {{split: {name}, path: data/{name}-*}}" for name in splits)
    (path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n")
    return str(path)


def chosen(count: int, answer: str = "A") -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Q{n}",
            "chosen": [{"content": f"Q{n}", "role": "user"}, {"content": f"{answer}{n}", "role": "assistant"}],
            "rejected": [{"content": f"Q{n}", "role": "user"}, {"content": "bad", "role": "assistant"}],
        }
        for n in range(count)
    ]


def rated(count: int) -> list[dict[str, Any]]:
    """Row n is best answered by completion n % 4."""
    return [
        {
            "source": "s",
            "instruction": f"Q{n}",
            "completions": [completion(f"{n}-{k}", *["5" if k == n % 4 else "3"] * 4) for k in range(4)],
        }
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("completions", "best"),
    [
        ([completion("a", "3", "3", "3", "3"), completion("b", "5", "5", "1", "2")], "b"),
        ([completion("a", "3", "4", "3", "3"), completion("b", "5", "5", "1", "2")], "a"),  # 3.25 each: the first
        ([completion("a", "3", "N/A", "5", "4"), completion("b", "4", "4", "4", "3")], "a"),
        ([completion("a", "N/A", "N/A", None, ""), completion("b", "1", "1", "1", "1")], "b"),
        ([completion("a", "4", "4", "4", "4"), completion("b", "4.5", "4", "4", "4")], "b"),
        ([{"response": "a", "annotations": None}, {"response": "b"}], "a"),
        ([{"response": None}], ""),
        ([], ""),
    ],
)
def test_the_best_answer_has_the_highest_mean_rating(completions: list[dict[str, Any]], best: str) -> None:
    assert best_answer(completions) == best


def test_mean_ratings_are_means() -> None:
    assert mean_rating(completion("a", "1", "2", "5", "3")) == mean([1, 2, 5, 3])
    assert mean_rating(completion("a", "1", "N/A", "5", "2")) == mean([1, 5, 2])


def test_rated_answers_are_divided_three_ways_by_the_seed(tmp_path: Path) -> None:
    path = folder(tmp_path / "raw", train=rated(40))
    data = UltraFeedback(path, validation_size=0.1, test_size=10, seed=1)
    splits = {split: data.read(split) for split in ("train", "validation", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 26, "validation": 4, "test": 10}
    assert sorted(row["row"] for rows in splits.values() for row in rows) == list(range(40))
    for row in (row for rows in splits.values() for row in rows):
        n = row["row"]
        assert [(m["role"], m["content"]) for m in row["messages"]] == [
            ("user", f"Q{n}"),
            ("assistant", f"{n}-{n % 4}"),
        ]
    assert data.read("predict") == splits["test"]
    again = UltraFeedback(path, validation_size=2, test_size=10, seed=1)
    other = UltraFeedback(path, validation_size=0.1, test_size=10, seed=2)
    assert again.read("test") == splits["test"] != other.read("test")
    assert [row for row in again.read("validation") if row in splits["validation"]] == again.read("validation")
    assert other.held_out_by == {"seed": 2, "validation_size": 0.1, "test_size": 10}


@pytest.mark.parametrize(("train", "test"), [("train_sft", "test_sft"), ("train", "test"), ("train", None)])
def test_chosen_answers_with_or_without_a_test_split(train: str, test: str | None, tmp_path: Path) -> None:
    path = folder(tmp_path / "binarized", **{train: chosen(20)}, **({test: chosen(5, "T")} if test else {}))
    data = UltraFeedback(path, validation_size=3, test_size=4)
    assert len(data.read("train")) == (17 if test else 13)
    assert len(data.read("validation")) == 3
    answers = [row["messages"][1]["content"] for row in data.read("test")]
    assert answers == [f"T{n}" for n in range(5)] if test else len(answers) == 4
    assert data.read("train")[0]["where"].endswith(f"of the split '{train}' of '{path}'")


def test_empty_answers_of_the_data_set_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = chosen(10)
    rows[3]["chosen"][1]["content"] = " \n"
    rows[5]["chosen"][0]["content"] = None
    data = UltraFeedback(folder(tmp_path / "a", train=rows), test_size=1, validation_size=1)
    read = [row["row"] for split in ("train", "validation", "test") for row in data.read(split)]  # type: ignore[arg-type]
    assert sorted(read) == [0, 1, 2, 4, 6, 7, 8, 9]
    assert data.warnings == ["rows of 'train' left out, as a prompt or an answer is empty: 2"]
    unrated = [*rated(6), {"source": "s", "instruction": "Q", "completions": []}]
    data = UltraFeedback(folder(tmp_path / "b", train=unrated), test_size=1, validation_size=1)
    assert len(data.read("train")) == 4 and len(data.warnings) == 1


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [
        ({"train": [{"text": "a"}]}, "the split 'train' of the data set 'PATH' has the columns text, but"),
        ({"train_prefs": chosen(3)}, "the data set 'PATH' has no split 'train_sft' or 'train', but train_prefs"),
        ({"train": [{"chosen": "Human: hi"}] * 5}, "row 1 of the split 'train' of 'PATH' has no list of messages"),
        (
            {"train": [{"chosen": row["chosen"][1:]} for row in chosen(9)]},
            "has no user message to answer",
        ),
        ({"train": chosen(3)}, "too few different prompts (3) to train on after data.test_size 1000 and"),
    ],
)
def test_other_data_sets_are_refused(splits: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "other", **splits)
    sizes = {} if "too few" in complaint else {"test_size": 1, "validation_size": 1, "seed": 4}
    data = UltraFeedback(path, **sizes)
    data.connect(build_tokenizer(), False)
    with pytest.raises(UsageError) as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)
    assert complaint.replace("PATH", path) in str(caught.value)


def test_sizes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"data\.test_size is 0"):
        UltraFeedback(test_size=0)


@pytest.fixture
def real(shared: Path) -> str:
    return str(shared / "hub/HuggingFaceH4/ultrafeedback_binarized")


def test_the_real_rows(real: str, shared: Path) -> None:
    tables = {
        split: parquet.read_table(next(Path(real).rglob(f"{split}-*"))).to_pylist()
        for split in ("train_sft", "test_sft")
    }
    data = UltraFeedback(real, validation_size=100, max_length=100_000)
    tokenizer = AutoTokenizer.from_pretrained(shared / "hub/meta-llama/Llama-2-7b-hf", pad_token="</s>")
    data.connect(tokenizer, False)
    for stage in ("fit", "test"):
        data.setup(stage)
    assert data.counts == {"train": 899, "validation": 100, "test": 200}
    assert data.warnings == ["rows of 'train_sft' left out, as a prompt or an answer is empty: 1"]
    kept = [row for split in ("train", "validation") for row in data._encoded[split]]
    (empty,) = {*range(1000)} - {row["row"] for row in kept}
    assert not tables["train_sft"][empty]["chosen"][1]["content"].strip()

    def plain(record: dict[str, Any]) -> str:
        return f"Human: {record['chosen'][0]['content']}\n\nAssistant: {record['chosen'][1]['content']}"

    for encoded, table in ((kept, tables["train_sft"]), (data._encoded["test"], tables["test_sft"])):
        some = encoded[::20]
        whole = tokenizer([plain(table[row["row"]]) for row in some])["input_ids"]
        assert [row["tokens"].tolist() for row in some] == [[*tokens, tokenizer.eos_token_id] for tokens in whole]
        prompts = tokenizer([plain(table[row["row"]]).partition("\n\nAssistant: ")[0] for row in some])["input_ids"]
        assert all(row["tokens"].tolist()[: len(prompt)] == prompt for row, prompt in zip(some, prompts, strict=True))
        for row in some:
            answer = tokenizer.decode(row["tokens"][row["prompt"] :]).removesuffix("</s>")
            assert answer == table[row["row"]]["chosen"][1]["content"]
    rows, labels = [], 0
    for batch in data.test_dataloader():
        rows += batch["row"]
        labels += int((batch["labels"] != IGNORED).sum())
    assert sorted(rows) == list(range(200))
    assert labels == sum(len(row["tokens"]) - row["prompt"] for row in data._encoded["test"])


def test_real_rows_over_the_limit_are_counted(real: str, shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "hub/Qwen/Qwen2.5-0.5B")
    table = parquet.read_table(next(Path(real).rglob("test_sft-*"))).to_pylist()
    rendered = [tokenizer.apply_chat_template(row["chosen"], tokenize=False) for row in table]
    lengths = [len(tokens) for tokens in tokenizer(rendered, add_special_tokens=False)["input_ids"]]
    longer = sum(length > 768 for length in lengths)
    assert 0 < longer < 200
    counted = {}
    for overlong in ("drop", "cut"):
        data = UltraFeedback(real, template="chat", overlong=overlong)  # type: ignore[arg-type]
        data.connect(tokenizer, False)
        data.setup("test")
        counted[overlong] = (len(data._encoded["test"]), data.dropped["test"], data.cut["test"])
    assert counted["drop"] == (200 - longer, longer, 0)
    rows, dropped, cut = counted["cut"]
    assert dropped + cut == longer and rows == 200 - dropped and cut > 0
