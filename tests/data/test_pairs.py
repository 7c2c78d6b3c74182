"""What becomes of (source, target) rows, on rows made here and on the real E2E data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from red_lightning.data import E2E, PairsDataModule
from red_lightning.data.collation import IGNORED
from red_lightning.data.hub_rows import Row
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

EOS = 0
SPLITS = {"train": 42_061, "validation": 4_672, "test": 630}


class Rows(PairsDataModule):
    """The same rows in every split."""

    def __init__(self, rows: list[Row], **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows

    def read(self, split: str) -> list[Row]:
        return self.rows


def rows_of(*pairs: tuple[str, str]) -> list[Row]:
    return [{"source": source, "target": target} for source, target in pairs]


def connected(rows: list[Row], encoder_decoder: bool = False, stage: str = "fit", **options: Any) -> Rows:
    data = Rows(rows, **options)
    data.connect(build_tokenizer(), encoder_decoder)
    data.setup(stage)
    return data


def test_labels_are_the_reference_and_its_eos_only() -> None:
    data = connected(rows_of(("name[Zizzi]", "Zizzi is a pub."), ("food[Thai], area[riverside]", "Thai.")))
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            learned = labels[labels != IGNORED]
            assert data.tokenizer.decode(learned) in ("Zizzi is a pub.<eos>", "Thai.<eos>")
            text = data.tokenizer.decode(tokens[mask.bool()])
            assert text in ("name[Zizzi]<eos>Zizzi is a pub.<eos>", "food[Thai], area[riverside]<eos>Thai.<eos>")
            assert torch.equal(tokens[labels != IGNORED], learned)


def test_an_encoder_decoder_gets_source_and_reference_apart() -> None:
    data = connected(rows_of(("name[Zizzi]", "Zizzi is a pub.")), encoder_decoder=True)
    (batch,) = data.train_dataloader()
    assert data.tokenizer.decode(batch["input_ids"][0]) == "name[Zizzi]<eos>"
    assert data.tokenizer.decode(batch["labels"][0]) == "Zizzi is a pub.<eos>"


def test_cutting_keeps_eos_and_is_counted() -> None:
    data = connected(rows_of(("a b c d e f", "g h i j k"), ("x", "y")), max_source_length=4, max_target_length=3)
    (batch,) = data.val_dataloader()
    assert {int(EOS)} == {int(tokens[tokens != 1][-1]) for tokens in batch["input_ids"]}
    whole = data.tokenizer("a b c d e f")["input_ids"][:3], data.tokenizer("g h i j k")["input_ids"][:2]
    row = next(tokens for tokens in batch["input_ids"].tolist() if tokens[0] == whole[0][0])
    assert row == [*whole[0], EOS, *whole[1], EOS]
    assert data.cut == {"train": 2, "validation": 2}


def test_a_text_that_just_fits_is_not_cut() -> None:
    length = len(build_tokenizer()("a b c")["input_ids"]) + 1
    data = connected(rows_of(("a b c", "a b c")), max_source_length=length, max_target_length=length)
    assert data.cut == {"train": 0, "validation": 0}


def test_a_tokenizers_own_eos_is_not_doubled() -> None:
    """T5 tokenizers end a text with EOS themselves."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", EOS)])
    assert tokenizer("a")["input_ids"][-1] == EOS
    data = Rows(rows_of(("name[Zizzi]", "Zizzi")))
    data.connect(tokenizer, True)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert tokenizer.decode(batch["input_ids"][0]) == "name[Zizzi]<eos>"
    assert tokenizer.decode(batch["labels"][0]) == "Zizzi<eos>"


def test_distinct_sources_carry_their_references_in_order() -> None:
    rows = rows_of(("long long source", "1"), ("b", "2"), ("long long source", "3"), ("b", "2"), ("c", "4"))
    data = connected(rows, stage="test", eval_batch_size=2)
    found = {
        row: (text, references)
        for batch in data.test_dataloader()
        for row, text, references in zip(batch["row"], batch["text"], batch["references"], strict=True)
    }
    assert found == {0: ("long long source", ["1", "3"]), 1: ("b", ["2", "2"]), 2: ("c", ["4"])}
    assert data.counts == {"test": 3}


def test_prediction_needs_no_target() -> None:
    data = connected([{"source": "a"}, {"source": "b"}, {"source": "a"}], stage="predict")
    (batch,) = data.predict_dataloader()
    assert sorted(zip(batch["row"], batch["text"], batch["references"], strict=True)) == [(0, "a", []), (1, "b", [])]


def test_train_size_chooses_by_the_seed() -> None:
    rows = rows_of(*((f"s{index}", f"t{index}") for index in range(40)))

    def chosen(size: int | None, seed: int) -> set[str]:
        data = connected(rows, train_size=size, seed=seed)
        assert data.counts["validation"] == 40
        batches = list(data.train_dataloader())
        return {data.tokenizer.decode(tokens[tokens != 1]) for batch in batches for tokens in batch["input_ids"]}

    few = chosen(10, 1)
    assert len(few) == 10
    assert few == chosen(10, 1) != chosen(10, 2)
    assert few < chosen(20, 1) < chosen(None, 1)  # smaller sizes are parts of larger ones
    assert len(chosen(40, 1)) == 40


@pytest.mark.parametrize("size", [0, -1, 4])
def test_an_impossible_train_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=rf"train_size is {size}, but the train split has 3 rows"):
        connected(rows_of(("a", "b"), ("c", "d"), ("e", "f")), train_size=size)


@pytest.mark.parametrize(
    "options", [{"global_batch_size": 0}, {"eval_batch_size": -1}, {"max_source_length": 1}, {"max_target_length": 0}]
)
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=rf"data\.{next(iter(options))}"):
        Rows([], **options)


def test_empty_splits_and_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="the train split has no rows"):
        connected([])
    with pytest.raises(UsageError, match="row 2 of the train split has an empty 'target'"):
        connected(rows_of(("a", "b"), ("c", " \n")))


def test_a_tokenizer_is_needed() -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        Rows(rows_of(("a", "b"))).setup("fit")


def test_like_lengths_share_batches() -> None:
    rows = rows_of(*(("a " * (1 + 7 * index % 10), "b") for index in range(10)))
    data = connected(rows, stage="test", eval_batch_size=3)
    widths = [batch["input_ids"].shape[1] for batch in data.test_dataloader()]
    assert widths == sorted(widths)
    padding = sum(int((batch["attention_mask"] == 0).sum()) for batch in data.test_dataloader())
    assert padding <= 3 * 2 * 3


@pytest.fixture(scope="module")
def e2e(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> E2E:
    """The real data set, read with the stand-in of GPT-2's tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        data = E2E(str(shared / "hub/tuetschek/e2e_nlg"), seed=1, eval_batch_size=64)
        tokenizer = AutoTokenizer.from_pretrained(shared / "hub/openai-community/gpt2-medium")
        tokenizer.pad_token = tokenizer.eos_token
        data.connect(tokenizer, False)
        data.setup("fit")
        data.setup("test")
    return data


def test_e2e_has_the_papers_rows(e2e: E2E) -> None:
    assert e2e.counts == SPLITS
    assert len(e2e.train_dataloader()) == 4_207
    references = [batch["references"] for batch in e2e.test_dataloader()]
    assert sum(len(texts) for rows in references for texts in rows) == 4_693


def test_e2e_is_laid_out_as_in_the_authors_code(e2e: E2E, shared: Path) -> None:
    """Source, EOS, target, EOS, with the loss on the target and its EOS."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(shared / "hub/tuetschek/e2e_nlg/data/validation-00000-of-00001.parquet").to_pylist()
    eos = e2e.tokenizer.eos_token_id
    expected = set()
    for row in table:
        source = e2e.tokenizer(row["meaning_representation"])["input_ids"]
        target = e2e.tokenizer(row["human_reference"])["input_ids"]
        if len(source) < 64 and len(target) < 100:
            expected.add((*source, eos, *target, eos))
    assert len(expected) > 2_000
    seen = set()
    for batch in e2e.val_dataloader():
        for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            ids = tokens[: int(mask.sum())].tolist()
            start = ids.index(eos) + 1
            assert labels.tolist()[: len(ids)] == [IGNORED] * start + ids[start:]
            seen.add(tuple(ids))
    assert expected <= seen


def test_e2e_has_the_references_that_the_authors_scored(e2e: E2E, shared: Path) -> None:
    """Their file holds the references of each distinct source, a blank line between two sources.

    The blanks before punctuation are gone there (``clean_up_tokenization_spaces``), in 52 references.
    """

    def squeezed(texts: list[str]) -> list[str]:
        return sorted("".join(text.split()) for text in texts)

    blocks = (shared / "authors/gpt2_medium/label.txt").read_text(encoding="utf-8").strip().split("\n\n")
    ours = [references for batch in e2e.test_dataloader() for references in batch["references"]]
    assert sorted(squeezed(block.split("\n")) for block in blocks) == sorted(map(squeezed, ours))
