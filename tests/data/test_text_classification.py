"""What becomes of labelled texts: batches, cutting, pairs, the order of training rows and their number."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from red_lightning.data import GLUE, ClassificationDataModule, LabeledTexts, TextPairs
from red_lightning.data.hub_rows import Row
from red_lightning.data.row_data_module import Encoded
from red_lightning.data.text_classification import collate_texts
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer
from tests.training import write_pairs

PAD, UNKNOWN, START, SEPARATOR, FIRST = range(5)


def words_tokenizer(token_types: bool = True) -> PreTrainedTokenizerFast:
    """BERT's layout with one token per word: ``w7`` is token 4 + 7."""
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    words |= {f"w{index}": FIRST + index for index in range(100)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", START), ("[SEP]", SEPARATOR)],
    )
    names = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_input_names=names)


def words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


def tokens(*numbers: int) -> list[int]:
    return [FIRST + number for number in numbers]


class Rows(ClassificationDataModule):
    """The same rows in every split."""

    metrics = ["accuracy"]

    def __init__(self, rows: list[Row], names: list[str] | None, **options: Any) -> None:
        super().__init__(**{"seed": 1, **options})
        self.rows, self.names = rows, names

    def label_names(self) -> list[str] | None:
        return self.names

    def text_columns(self) -> list[str]:
        return ["text"]

    def read(self, split: str) -> list[Row]:
        return self.rows


def single(*texts: str, label: Any = "a") -> list[Row]:
    return [{"text": text, "label": label} for text in texts]


def pair(first: str, second: str, label: Any = "a") -> Row:
    return {"text": first, "text_pair": second, "label": label}


def connected(rows: list[Row], tokenizer: Any = None, stage: str = "fit", **options: Any) -> Rows:
    data = Rows(rows, options.pop("names", ["a", "b"]), **options)
    data.connect(tokenizer or words_tokenizer(), False)
    data.setup(stage)
    return data


def encoded(ids: list[int], label: Any, row: int = 0, **more: Any) -> Encoded:
    return {"input_ids": ids, "row": row, "texts": {"text": str(ids)}, "label": label, **more}


def test_a_batch_is_padded_and_masked() -> None:
    batch = collate_texts([encoded([5, 6, 9], 1, row=8), encoded([7], 0, row=2), encoded([9, 9], 2, row=3)], pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 9], [7, 9, 9], [9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["labels"].tolist() == [1, 0, 2]
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "labels")} == {torch.int64}
    assert batch["row"] == [8, 2, 3]
    assert batch["texts"] == [{"text": "[5, 6, 9]"}, {"text": "[7]"}, {"text": "[9, 9]"}]
    assert set(batch) == {"input_ids", "attention_mask", "labels", "label_values", "row", "texts"}


def test_token_types_are_padded_with_the_first() -> None:
    rows = [encoded([5], 0, token_type_ids=[1]), encoded([5, 6, 7], 1, token_type_ids=[0, 1, 1])]
    batch = collate_texts(rows, pad_id=3)
    assert batch["token_type_ids"].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert batch["token_type_ids"].dtype == torch.int64


def test_numbers_to_predict_are_floats() -> None:
    batch = collate_texts([encoded([5], 2.5), encoded([6], -1.0)], pad_id=0)
    assert batch["labels"].tolist() == [2.5, -1.0]
    assert batch["labels"].dtype == torch.float32


@pytest.mark.parametrize("labels", [[None, None], [0, None], [None, 0.5]])
def test_without_every_label_there_are_none(labels: list[Any]) -> None:
    batch = collate_texts([encoded([5], label) for label in labels], pad_id=0)
    assert "labels" not in batch
    assert batch["input_ids"].shape == (2, 1)


def test_labels_are_the_numbers_of_their_classes() -> None:
    data = connected([*single(words(1), label="b"), *single(words(2), label="a"), *single(words(3), label="b")])
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    found = sorted((ids[1], label) for batch in batches for ids, label in zip(*lists(batch), strict=True))
    assert found == sorted(2 * [(FIRST + 1, 1), (FIRST + 2, 0), (FIRST + 3, 1)])
    assert data.label_counts == {"a": 1, "b": 2}


def lists(batch: dict[str, Any]) -> tuple[list[list[int]], list[int]]:
    return batch["input_ids"].tolist(), batch["labels"].tolist()


def test_a_pair_is_laid_out_by_the_tokenizer() -> None:
    data = connected([pair(words(1, 2), words(3))], max_length=8)
    (batch,) = data.val_dataloader()
    assert batch["input_ids"].tolist() == [[START, *tokens(1, 2), SEPARATOR, *tokens(3), SEPARATOR]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert batch["texts"] == [{"text": "w1 w2", "text_pair": "w3"}]
    assert "token_type_ids" not in next(iter(connected([pair("w1", "w2")], words_tokenizer(False)).val_dataloader()))


@pytest.mark.parametrize("length", [8, 11])
def test_long_texts_are_cut_and_counted(length: int) -> None:
    """Special tokens stay, and those within the limit are left as they are."""
    sizes = [1, length - 3, length - 2, length - 1, length, 50]
    data = connected([*single(*(words(*range(size)) for size in sizes))], max_length=length)
    (batch,) = data.val_dataloader()
    lengths = batch["attention_mask"].sum(1).tolist()
    for ids, row, kept in zip(batch["input_ids"].tolist(), batch["row"], lengths, strict=True):
        expected = [START, *tokens(*range(min(sizes[row], length - 2))), SEPARATOR]
        assert ids[:kept] == expected
        assert set(ids[kept:]) <= {PAD}
    assert sorted(batch["row"]) == list(range(6))
    assert data.cut == {"train": 3, "validation": 3}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(2, 50, (2, 5)), (50, 2, (5, 2)), (50, 50, (3, 4)), (1, 6, (1, 6)), (6, 1, (6, 1)), (3, 5, (3, 4))],
)
def test_the_longer_text_of_a_pair_is_cut_first(first: int, second: int, kept: tuple[int, int]) -> None:
    """Ten tokens are three special ones and seven words; where both are long the cut is even."""
    data = connected([pair(words(*range(first)), words(*range(50, 50 + second)))], max_length=10)
    (batch,) = data.val_dataloader()
    ids = [START, *tokens(*range(kept[0])), SEPARATOR, *tokens(*range(50, 50 + kept[1])), SEPARATOR]
    assert batch["input_ids"].tolist() == [ids]
    assert batch["token_type_ids"].tolist() == [[0] * (kept[0] + 2) + [1] * (kept[1] + 1)]
    assert data.cut["validation"] == (first + second > 7)


def test_cut_rows_are_counted_in_each_split(tmp_path: Path) -> None:
    def file(name: str, *sizes: int) -> str:
        lines = [f"{words(*range(size))},{'ab'[index % 2]}" for index, size in enumerate(sizes)]
        (tmp_path / name).write_text("\n".join(["text,label", *lines]))
        return str(tmp_path / name)

    files = {"validation_file": file("b.csv", 2, 3), "test_file": file("c.csv", 20, 20, 20)}
    data = LabeledTexts(file("a.csv", 1, 7, 6, 30), max_length=8, seed=1, **files)
    data.connect(words_tokenizer(), False)
    data.setup("fit")
    data.setup("test")
    assert data.cut == {"train": 2, "validation": 0, "test": 3}


def test_without_a_separator_a_newline_joins_the_pair() -> None:
    """As for GPT-2, whose tokenizer puts nothing between two texts."""
    rows = [pair("a pub", "near the river"), pair("x", "y")]
    data = connected(rows, build_tokenizer())
    (batch,) = data.val_dataloader()
    found = {
        row: data.tokenizer.decode(ids[mask.bool()])
        for row, ids, mask in zip(batch["row"], batch["input_ids"], batch["attention_mask"], strict=True)
    }
    assert found == {0: "a pub\nnear the river", 1: "x\ny"}
    assert dict(zip(batch["row"], batch["texts"], strict=True))[1] == {"text": "x", "text_pair": "y"}


def test_without_a_separator_too_the_longer_text_is_cut() -> None:
    data = connected([pair("river " * 50, "Thai food")], build_tokenizer(), max_length=20)
    (batch,) = data.val_dataloader()
    (tokens,) = batch["input_ids"]
    assert len(tokens) == 20
    assert data.tokenizer.decode(tokens).endswith("\nThai food")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("FacebookAI/roberta-base", "<s>one</s></s>two</s>"),
        ("google-bert/bert-base-uncased", "[CLS] one [SEP] two [SEP]"),
        ("google-t5/t5-base", "one</s> two</s>"),
        ("openai-community/gpt2-medium", "one\ntwo"),
    ],
)
def test_pairs_of_the_real_tokenizers(name: str, layout: str, shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "hub" / name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    data = connected([pair("one", "two")], tokenizer)
    (batch,) = data.val_dataloader()
    assert tokenizer.decode(batch["input_ids"][0], clean_up_tokenization_spaces=False) == layout


def test_like_lengths_share_batches() -> None:
    sizes = [1 + 7 * index % 40 for index in range(40)]
    rows = single(*(words(*range(size)) for size in sizes))
    for shuffled in (False, True):
        data = connected(rows, global_batch_size=4, eval_batch_size=4, group_by_length=shuffled)
        widths = [batch["input_ids"].shape[1] for batch in data.val_dataloader()]
        assert widths == [size + 2 for size in sorted(sizes)[3::4]]  # the least that there can be
        batches = list(data.train_dataloader())
        assert sorted(row for batch in batches for row in batch["row"]) == list(range(40))
        widths = [batch["input_ids"].shape[1] for batch in batches]
        least = [size + 2 for size in sorted(sizes)[3::4]]
        if shuffled:
            assert sorted(widths) == least
            assert widths != least  # in random order
        else:
            assert sum(widths) > 1.3 * sum(least)


def test_an_epoch_has_every_row_in_an_order_of_its_own() -> None:
    data = connected(single(*(words(index) for index in range(30))), global_batch_size=4)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(3):
        loader.batches.set_epoch(epoch)
        epochs.append(tuple(row for batch in loader for row in batch["row"]))
        assert sorted(epochs[-1]) == list(range(30))
    assert len(set(epochs)) == 3


def uneven_file(path: Path) -> str:
    labels = ["a"] * 120 + ["b"] * 60 + ["c"] * 20
    path.write_text("text,label\n" + "".join(f"w{index},{label}\n" for index, label in enumerate(labels)))
    return str(path)


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        (None, [120, 60, 20]),
        (20, [12, 6, 2]),
        (0.1, [12, 6, 2]),
        (100, [60, 30, 10]),
        (0.5, [60, 30, 10]),
        (200, [120, 60, 20]),
        (1.0, [120, 60, 20]),
        (3, [1, 1, 1]),
    ],
)
def test_train_size_keeps_the_shares_of_the_classes(size: float | None, counts: list[int], tmp_path: Path) -> None:
    file = uneven_file(tmp_path / "a.csv")

    def chosen(seed: int) -> set[str]:
        data = LabeledTexts(file, file, file, train_size=size, seed=seed, global_batch_size=50)
        data.connect(words_tokenizer(), False)
        data.setup("fit")
        assert data.label_counts == dict(zip("abc", counts, strict=True))
        assert data.counts == {"train": sum(counts), "validation": 200}
        return {text["text"] for batch in data.train_dataloader() for text in batch["texts"]}

    assert len(chosen(1)) == sum(counts)
    assert chosen(1) == chosen(1)
    assert (chosen(1) == chosen(2)) == (sum(counts) == 200)


def test_train_size_takes_of_what_is_not_held_out(tmp_path: Path) -> None:
    data = LabeledTexts(uneven_file(tmp_path / "a.csv"), train_size=0.5, seed=1)
    data.connect(words_tokenizer(), False)
    data.setup("fit")
    assert data.counts == {"train": 80, "validation": 20}
    assert data.label_counts == {"a": 48, "b": 24, "c": 8}


@pytest.mark.parametrize("size", [0.1, 100])
def test_train_size_of_glue(size: float, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    hub = shared / "hub/nyu-mll/glue"
    labels = parquet.read_table(hub / "cola/train-00000-of-00001.parquet")["label"].to_pylist()
    rows = round(0.1 * len(labels)) if size == 0.1 else 100
    data = GLUE("cola", str(hub), train_size=size, seed=42)
    found = Counter(row["label"] for row in data_rows(data))
    assert found.total() == rows
    assert abs(found["acceptable"] - rows * sum(labels) / len(labels)) < 1
    assert data_rows(data) == data_rows(GLUE("cola", str(hub), train_size=size, seed=42))
    assert data_rows(data) != data_rows(GLUE("cola", str(hub), train_size=size, seed=43))


def data_rows(data: GLUE) -> list[Row]:
    data.labels = data.label_names()
    return data.checked_rows("train")


@pytest.mark.parametrize(("size", "rows"), [(0.1, 4), (0.25, 10), (1.0, 40), (1e-6, 1), (7, 7)])
def test_train_size_of_pairs(size: float, rows: int, tmp_path: Path) -> None:
    train = str(write_pairs(tmp_path / "a.jsonl", 40))
    data = TextPairs(train, train, train_size=size, seed=1)
    data.connect(build_tokenizer(), False)
    data.setup("fit")
    assert data.counts == {"train": rows, "validation": 40}


def trainer(stage: str = "fit", rank: int = 0, world_size: int = 1, batches: float = math.inf) -> Any:
    """What a data module asks of a trainer."""
    return SimpleNamespace(
        state=SimpleNamespace(fn=stage),
        lightning_module=None,
        global_rank=rank,
        world_size=world_size,
        num_training_batches=batches,
        accumulate_grad_batches=1,
    )


def thirty(**options: Any) -> Rows:
    return connected(single(*(words(index) for index in range(30))), global_batch_size=4, **options)


@pytest.mark.parametrize("done", [0, 1, 5, 7])
@pytest.mark.parametrize("group", [False, True])
def test_training_continues_where_a_checkpoint_left_it(done: int, group: bool) -> None:
    whole = [batch["row"] for batch in thirty(group_by_length=group).train_dataloader()]
    assert len(whole) == 8
    data = thirty(group_by_length=group)
    assert data.state_dict() == {}  # nothing was handed out
    batches = iter(data.train_dataloader())
    first = [next(batches)["row"] for _ in range(done)]
    state = data.state_dict()
    assert state == {"position": done, "accumulation": 1, "batch_size": 4}
    resumed = thirty(group_by_length=group)
    resumed.trainer = trainer()
    resumed.load_state_dict(state)
    rest = [batch["row"] for batch in resumed.train_dataloader()]
    assert first + rest == whole
    assert sorted(row for batch in whole for row in batch) == list(range(30))


def test_the_epoch_after_a_resumed_one_is_whole() -> None:
    data = thirty()
    data.trainer = trainer()
    data.load_state_dict({"position": 6})
    loader = data.train_dataloader()
    assert len(list(loader)) == 2
    assert data.state_dict()["position"] == 0  # the epoch is over
    assert len(list(loader)) == 8
    assert len(list(data.train_dataloader())) == 8


def test_a_limited_epoch_ends_where_the_trainer_says() -> None:
    data = thirty()
    data.trainer = trainer(batches=3)
    batches = iter(data.train_dataloader())
    positions = []
    for _ in range(3):
        next(batches)
        positions.append(data.state_dict()["position"])
    assert positions == [1, 2, 0]


def test_only_a_fit_continues() -> None:
    data = thirty()
    data.trainer = trainer("validate")
    data.load_state_dict({"position": 6})
    assert len(list(data.train_dataloader())) == 8


def test_processes_share_each_batch() -> None:
    whole = [batch["row"] for batch in thirty().train_dataloader()]
    ranks = []
    for rank in range(2):
        data = thirty(eval_batch_size=8)
        data.trainer = trainer(rank=rank, world_size=2)
        ranks.append([batch["row"] for batch in data.train_dataloader()])
        assert len([row for batch in data.val_dataloader() for row in batch["row"]]) == 15
    assert [sorted(first + second) for first, second in zip(*ranks, strict=True)] == [sorted(rows) for rows in whole]
    data = thirty()
    data.trainer = trainer(world_size=3)
    with pytest.raises(UsageError, match="global_batch_size is 4, which 3 processes cannot share"):
        data.train_dataloader()


def test_every_evaluated_row_is_seen_once_in_any_batch_size() -> None:
    rows = single(*(words(*range(1 + index % 7)) for index in range(23)))
    for size in (1, 5, 64):
        data = connected(rows, stage="test", eval_batch_size=size)
        batches = list(data.test_dataloader())
        assert sorted(row for batch in batches for row in batch["row"]) == list(range(23))
        assert len(batches) == math.ceil(23 / size)


def test_labels_come_from_the_checkpoint_where_the_data_do_not_say() -> None:
    data = Rows(single("w1", label="y"), None)
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(labels=["x", "y"], tokenizer=words_tokenizer(), encoder_decoder=False),
        global_rank=0,
        world_size=1,
    )  # type: ignore[assignment]
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["labels"].tolist() == [1]


def test_without_labels_there_is_nothing_to_learn() -> None:
    with pytest.raises(UsageError, match="the labels are not known"):
        connected(single("w1"), names=None)


def test_bad_rows_are_named() -> None:
    with pytest.raises(UsageError, match="the train split has no rows"):
        connected([])
    with pytest.raises(UsageError, match="row 2 of the train split has an empty 'text'"):
        connected(single("w1", " \n"))
    with pytest.raises(UsageError, match="row 1 of the train split has an empty 'text_pair'"):
        connected([pair("w1", "")])
    with pytest.raises(UsageError, match="row 2 of the train split has no label"):
        connected([*single("w1"), *single("w2", label=None)])
    with pytest.raises(UsageError, match=r"row 2 of the test split has the label 'c', .* known: a, b"):
        connected([*single("w1"), *single("w2", label="c")], stage="test")


def test_a_tokenizer_is_needed() -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        Rows(single("w1"), ["a"]).setup("fit")


@pytest.mark.parametrize(
    "options",
    [{"max_length": 7}, {"max_length": 0}, {"global_batch_size": 0}, {"eval_batch_size": -1}, {"num_workers": -1}],
    ids=str,
)
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(UsageError, match=rf"data\.{name} is {value},"):
        Rows([], [], **options)
