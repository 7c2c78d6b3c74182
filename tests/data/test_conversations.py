"""What becomes of conversations: labels, limits, batches, and what is reported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from red_lightning.data import ConversationsDataModule
from red_lightning.data.collation import IGNORED
from red_lightning.data.hub_rows import Row
from red_lightning.data.row_data_module import Split
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

ANSWERS = ["Zizzi is a pub.", "Yes. " * 9, "The Vaults is cheap, near Burger King.", "No."]


def single(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class Given(ConversationsDataModule):
    """The same conversations in every split."""

    def __init__(self, conversations: list[list[dict[str, str]]], **options: Any) -> None:
        super().__init__(**{"global_batch_size": 4, "eval_batch_size": 2, **options})
        self.conversations = conversations

    def read(self, split: Split) -> list[Row]:
        return [
            {"messages": messages, "row": number, "where": f"row {number + 1}"}
            for number, messages in enumerate(self.conversations)
        ]


def many(count: int) -> list[list[dict[str, str]]]:
    return [single(f"Number {number}?", ANSWERS[number % 4]) for number in range(count)]


def connected(conversations: list[list[dict[str, str]]], *stages: str, tokenizer: Any = None, **options: Any) -> Given:
    data = Given(conversations, **options)
    data.connect(tokenizer or build_tokenizer(), False)
    for stage in stages or ("fit",):
        data.setup(stage)
    return data


def count_tokens(conversation: list[dict[str, str]]) -> tuple[int, int]:
    """Tokens of the whole text and of its answer, EOS included, by the tokenizer alone."""
    tokenizer, (question, answer) = build_tokenizer(), (message["content"] for message in conversation)
    tokens = [len(tokenizer(text)["input_ids"]) for text in (f"Human: {question}\n\nAssistant:", f" {answer}<eos>")]
    return sum(tokens), tokens[1]


def test_labels_are_the_answers_and_their_eos_only() -> None:
    data = connected([single("a?", "b."), [*single("c?", "d."), *single("e?", "f.")]])
    texts = ["Human: a?\n\nAssistant: b.<eos>", "Human: c?\n\nAssistant: d.<eos>\n\nHuman: e?\n\nAssistant: f.<eos>"]
    (batch,) = data.val_dataloader()
    for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        text = data.tokenizer.decode(tokens[mask.bool()])
        assert text in texts
        learned = labels[labels != IGNORED]
        assert data.tokenizer.decode(learned) == (" b.<eos>" if text == texts[0] else " d.<eos> f.<eos>")
        assert torch.equal(tokens[labels != IGNORED], learned)


def test_all_tokens_are_learned_but_the_first() -> None:
    data = connected(many(4), loss_on="all")
    for batch in data.val_dataloader():
        real = batch["attention_mask"].bool()
        real[:, 0] = False
        assert torch.equal(batch["labels"] != IGNORED, real)
    assert [data.weight(row) for row in data._encoded["train"]] == [count_tokens(c)[0] - 1 for c in many(4)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_training_rows_come_once_with_their_labels(packing: bool, micro_batch_size: int | None) -> None:
    data = connected(many(11), packing=packing, micro_batch_size=micro_batch_size)
    seen, step_labels = [], {}
    for batch in data.train_dataloader():
        seen += batch["row"]
        step_labels.setdefault(batch["step_weight"], []).append(int((batch["labels"] != IGNORED).sum()))
        assert ("position_ids" in batch) == packing == ("attention_mask" not in batch)
        assert not packing or len(batch["input_ids"]) == 1
    assert sorted(seen) == list(range(11))
    assert all(weight == sum(labels) for weight, labels in step_labels.items())
    assert sum(step_labels) == sum(count_tokens(conversation)[1] for conversation in many(11))


def test_packed_steps_have_the_rows_and_labels_of_padded_ones() -> None:
    steps: list[list[Any]] = []
    for packing in (False, True):
        data = connected(many(8), packing=packing, micro_batch_size=2, seed=3)
        batches = list(data.train_dataloader())
        rows = [sorted(batches[n]["row"] + batches[n + 1]["row"]) for n in (0, 2)]
        labels = [sorted(torch.cat([b["labels"].flatten() for b in batches[n : n + 2]]).tolist()) for n in (0, 2)]
        steps.append([rows, [[label for label in step if label != IGNORED] for step in labels]])
    assert steps[0] == steps[1]


def test_evaluation_takes_every_row_once_over_all_processes() -> None:
    data = connected(many(5), "test")
    rows, labels = [], 0
    for rank in range(2):
        data._rank = lambda rank=rank: (rank, 2)  # type: ignore[method-assign, misc]
        batches = list(data.test_dataloader())
        assert len(batches) == 2
        for batch in batches:
            filler = torch.tensor(batch["row"]) < 0
            assert (batch["labels"][filler] == IGNORED).all()
            rows += [row for row in batch["row"] if row >= 0]
            labels += int((batch["labels"] != IGNORED).sum())
    assert sorted(rows) == list(range(5))
    assert labels == sum(count_tokens(conversation)[1] for conversation in many(5))


def test_longer_rows_are_dropped_or_cut() -> None:
    lengths = [count_tokens(conversation) for conversation in many(4)]
    limit = lengths[0][0]  # two are longer
    dropped = connected(many(4), max_length=limit)
    assert [row["row"] for row in dropped._encoded["train"]] == [0, 3]
    assert (dropped.dropped["train"], dropped.cut["train"]) == (2, 0)
    cut = connected(many(4), max_length=limit, overlong="cut")
    assert (cut.dropped["train"], cut.cut["train"]) == (0, 2)
    whole = connected(many(4))
    for row, full, (length, labels) in zip(cut._encoded["train"], whole._encoded["train"], lengths, strict=True):
        assert row["tokens"] == full["tokens"][:limit]
        assert cut.weight(row) == labels - max(0, length - limit)
        assert full["tokens"][-1] == 0 and (row["tokens"][-1] == 0) == (length <= limit)  # EOS where the answer ends
    assert dropped.provenance()["left_out"] == {"train": 2, "validation": 2}


def test_a_row_that_is_cut_before_its_answer_is_left_out() -> None:
    conversations = [single("Why? " * 30, "So."), single("a", "b")]
    for loss_on in ("answer", "all"):
        data = connected(conversations, max_length=30, overlong="cut", loss_on=loss_on)
        assert [row["row"] for row in data._encoded["train"]] == [1]
        assert (data.dropped["train"], data.cut["train"]) == (1, 0)


@pytest.mark.parametrize(
    ("overlong", "way_out"), [("drop", "raise it, or give --data.overlong cut"), ("cut", "raise it")]
)
def test_every_row_too_long(overlong: str, way_out: str) -> None:
    with pytest.raises(UsageError, match=rf"every row of the train split .*max_length 5 tokens; {way_out}$"):
        connected(many(3), max_length=5, overlong=overlong)


def test_prompts_are_padded_on_the_left_and_are_what_was_trained_on() -> None:
    conversations = [*many(3), [*single("c?", "d."), {"role": "user", "content": "e?"}]]
    data = connected(conversations[:3], "fit")
    asked = connected(conversations, "predict", max_length=5)  # prompts are not limited
    trained = {row["row"]: row for row in data._encoded["train"]}
    (first, second) = asked.predict_dataloader()
    for batch in (first, second):
        for row, tokens, mask, text, references in zip(
            batch["row"], batch["input_ids"], batch["attention_mask"], batch["text"], batch["references"], strict=True
        ):
            assert mask[-1] == 1 and (mask.diff() >= 0).all()
            prompt = tokens[mask.bool()].tolist()
            if row == 3:
                assert asked.tokenizer.decode(prompt) == "Human: c?\n\nAssistant: d.<eos>\n\nHuman: e?\n\nAssistant:"
                assert (text, references) == ("e?", [])
                assert asked.longest_prompt == len(prompt)
            else:
                known = trained[row]
                assert known["tokens"][: known["prompt"]].tolist() == prompt
                assert known["learned"] == [(len(prompt), len(known["tokens"]))]
                assert (text, references) == (f"Number {row}?", [ANSWERS[row]])


def test_prompts_of_a_split_to_show() -> None:
    data = connected(many(4))
    batch = data.prompts("validation", 3)
    assert batch["row"] == [0, 1, 2] and batch["text"] == ["Number 0?", "Number 1?", "Number 2?"]
    for tokens, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert data.tokenizer.decode(tokens[mask.bool()]).endswith("?\n\nAssistant:")


def test_a_conversation_cut_in_two_is_one_that_ends_earlier() -> None:
    whole = [*single("c?", "d."), *single("e? " * 30, "f.")]
    data = connected([whole], overlong="cut", max_length=40)
    short = connected([whole[:2]])
    (cut,), (known,) = data._encoded["validation"], short._encoded["validation"]
    assert len(cut["tokens"]) == 40 and cut["tokens"][: len(known["tokens"])] == known["tokens"]
    assert {**cut, "tokens": None} == {**known, "tokens": None}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("options", [{}, {"group_by_length": True}, {"packing": True}])
def test_what_is_reported_is_what_the_batches_hold(options: dict[str, Any], world_size: int) -> None:
    data = connected(many(22), micro_batch_size=2, max_length=55, **options)
    kept = [counted for counted in map(count_tokens, many(22)) if counted[0] <= 55]
    assert 0 < len(kept) < 22
    tokens, labels = map(sum, zip(*kept, strict=True))
    data._rank = lambda: (0, world_size)  # type: ignore[method-assign]
    notes = data.notes
    longest = max(length for length, _ in kept)
    assert notes[0] == f"train: {tokens:,} tokens, {labels:,} of them labels; the longest row has {longest}"
    assert notes[-1] == f"rows of the validation split left out, as they do not fit into 55 tokens: {22 - len(kept)}"
    padded = {}
    for grouped in (False, True):
        plain = connected(many(22), micro_batch_size=2, max_length=55, group_by_length=grouped)
        size = 0
        for rank in range(world_size):
            plain._rank = lambda rank=rank: (rank, world_size)  # type: ignore[method-assign, misc]
            size += sum(b["input_ids"].numel() for b in plain.train_dataloader() if b["row"] != [-1])
        padded[grouped] = f"{1 - tokens / size:.1%}"
    if options.get("packing"):
        assert notes[2] == f"padding: none, for rows are packed (otherwise {padded[False]} of the tokens)"
    elif options.get("group_by_length"):
        assert notes[2] == (
            f"padding: {padded[True]} of the tokens, for rows are grouped by length (otherwise {padded[False]})"
        )
    else:
        assert notes[2] == f"padding: {padded[False]} of the tokens; data.packing or data.group_by_length saves it"


def test_bad_rows_name_themselves() -> None:
    with pytest.raises(UsageError, match="row 2 has no answer"):
        connected([*many(1), many(1)[0][:1]])
    assert connected([many(1)[0][:1]], "predict").counts == {"predict": 1}


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(UsageError, match="need a decoder such as Llama"):
        Given(many(1)).connect(build_tokenizer(), True)


def test_a_chat_template_is_asked_for_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="no chat template"):
        connected(many(1), template="chat")


@pytest.mark.parametrize(("option", "value"), [("max_length", 1), ("validation_size", 0), ("micro_batch_size", 0)])
def test_impossible_options(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"data.{option} is {value}"):
        Given(many(1), **{option: value})


def test_the_tokens_that_end_answers_follow_the_template(shared: Path) -> None:
    qwen = AutoTokenizer.from_pretrained(shared / "hub/Qwen/Qwen2.5-0.5B")
    data = connected(many(2), tokenizer=qwen)
    assert data.stop_ids == [qwen.eos_token_id]
    chat = connected(many(2), tokenizer=qwen, template="chat")
    assert qwen.convert_ids_to_tokens(chat.stop_ids) == ["<|im_end|>", "<|endoftext|>"]
    row = chat._encoded["train"][0]
    assert qwen.decode(row["tokens"][row["prompt"] : row["learned"][0][1]]) == f"{ANSWERS[0]}<|im_end|>"
    assert (
        qwen.decode(row["tokens"])
        == f"<|im_start|>user\nNumber 0?<|im_end|>\n<|im_start|>assistant\n{ANSWERS[0]}<|im_end|>\n"
    )
