"""Conversations as text and as tokens: whole texts tokenized by the tokenizer itself are what they are held against."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from red_lightning.data.prompt_templates import ChatTemplate, PaperTemplate, Template, make_template
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

STANDINS = [
    "meta-llama/Llama-2-7b-hf",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-0.5B",
    "openai-community/gpt2-medium",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKS = (  # as Qwen3: only the last answer is written with its thoughts
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    ("How are you?", "Fine."),
    ("Räksmörgås? 日本 🍕", " 1. leading space\n\n```py\nx = 1\n```\n"),
    ("Ends in a newline\n", "\n\n- starts with two"),
    ("x", "(parenthesis) </p>  two  spaces "),
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def single(question: str, answer: str) -> list[dict[str, str]]:
    return [user(question), assistant(answer)]


LONG = [{"role": "system", "content": "Be brief."}, *(m for pair in TEXTS for m in single(*pair))]


@pytest.fixture(params=STANDINS)
def tokenizer(request: pytest.FixtureRequest, shared: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared / "hub" / request.param)


@pytest.fixture
def qwen(shared: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared / "hub/Qwen/Qwen2.5-0.5B")


def chat_tokenizer(template: str, **tokens: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with the special tokens of ChatML and a chat template."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], **tokens})
    tokenizer.chat_template = template
    return tokenizer


def tokens_of(template: Template, messages: list[dict[str, Any]]) -> tuple[list[int], list[tuple[int, int]]]:
    [(tokens, answers)] = template.tokenize([template.render(messages, "row 1")])
    return tokens, [(answer.start, answer.end) for answer in answers]


@pytest.mark.parametrize("pair", TEXTS)
def test_the_paper_template_is_the_whole_text_and_eos(tokenizer: Any, pair: tuple[str, str]) -> None:
    question, answer = pair
    tokens, [(start, end)] = tokens_of(PaperTemplate(tokenizer), single(question, answer))
    text = f"Human: {question}\n\nAssistant: {answer}"
    whole = tokenizer(text, return_offsets_mapping=True)
    assert tokens == [*whole["input_ids"], tokenizer.eos_token_id]
    first = len(f"Human: {question}\n\nAssistant:")
    assert start == next(n for n, (_, last) in enumerate(whole["offset_mapping"]) if last > first)
    assert end == len(tokens)
    assert tokens.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)  # GPT-2's is its EOS
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_every_prompt_of_a_conversation_is_a_prefix_of_its_tokens(tokenizer: Any) -> None:
    template = PaperTemplate(tokenizer)
    tokens, answers = tokens_of(template, LONG)
    assert len(answers) == 4
    for number, (start, end) in enumerate(answers):
        asked = LONG[: 2 + 2 * number]
        assert asked[-1]["role"] == "user"
        prompt, earlier = tokens_of(template, asked)
        assert tokens[:start] == prompt
        assert answers[:number] == earlier
        assert tokens[end - 1] == tokenizer.eos_token_id
        assert tokenizer.decode(tokens[start : end - 1]).lstrip(" ") == TEXTS[number][1].lstrip(" ")
    assert tokens.count(tokenizer.eos_token_id) == 4


def test_the_paper_template_of_a_long_conversation() -> None:
    messages = [{"role": "system", "content": "S"}, *single("a", "b"), *single("c", "d")]
    rendered = PaperTemplate(build_tokenizer()).render(messages, "row 1")
    assert rendered.text == "S\n\nHuman: a\n\nAssistant: b<eos>\n\nHuman: c\n\nAssistant: d<eos>"
    assert [rendered.text[answer.start : answer.start + 2] for answer in rendered.answers] == [" b", " d"]
    assert PaperTemplate(build_tokenizer()).render(messages[:-1], "row 1").text.endswith("Human: c\n\nAssistant:")


def test_bos_comes_once_and_eos_where_answers_end() -> None:
    plain, adds = build_tokenizer(), build_tokenizer()
    adds.add_special_tokens({"bos_token": "<s>"})
    tokens = [(name, adds.convert_tokens_to_ids(name)) for name in ("<s>", "<eos>")]
    adds.backend_tokenizer.post_processor = TemplateProcessing("<s> $A <eos>", special_tokens=tokens)
    assert adds("a")["input_ids"] == [tokens[0][1], *plain("a")["input_ids"], 0]
    expected, spans = tokens_of(PaperTemplate(plain), LONG)
    moved = [(start + 1, end + 1) for start, end in spans]
    assert tokens_of(PaperTemplate(adds), LONG) == ([tokens[0][1], *expected], moved)


@pytest.mark.parametrize("messages", [single(*TEXTS[0]), LONG[:5]])
def test_the_chat_template_gives_what_apply_chat_template_gives(qwen: Any, messages: list[dict[str, str]]) -> None:
    tokens, answers = tokens_of(ChatTemplate(qwen), messages)
    assert tokens == qwen.apply_chat_template(messages, tokenize=True, return_dict=False)
    (prompt, _) = tokens_of(ChatTemplate(qwen), messages[:-1])
    assert prompt == qwen.apply_chat_template(
        messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert tokens[: answers[-1][0]] == prompt


def test_answers_are_those_that_a_template_marks_itself(qwen: Any) -> None:
    expected = qwen.apply_chat_template(
        LONG[:5], chat_template=CHATML, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    tokens, answers = tokens_of(ChatTemplate(qwen), LONG[:5])
    assert tokens == expected["input_ids"]
    assert [n for n, marked in enumerate(expected["assistant_masks"]) if marked] == [
        n for start, end in answers for n in range(start, end)
    ]


def test_a_prompt_stays_a_prefix_where_a_token_would_reach_into_the_answer() -> None:
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.add_tokens(["\n\n", "\n\n\n"])
    template = ChatTemplate(tokenizer)
    messages = single("x", "\n\nan answer behind a blank line")
    tokens, [(start, end)] = tokens_of(template, messages)
    assert tokens[:start] == tokens_of(template, messages[:1])[0]
    assert tokenizer.decode(tokens[start:end]) == "\n\nan answer behind a blank line<|im_end|>"
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert len(whole) == len(tokens) - 1 and tokenizer.decode(whole) == tokenizer.decode(tokens)


@pytest.mark.parametrize(("chat", "stop"), [(CHATML, "<|im_end|>"), (LLAMA2, "<eos>"), (THINKS, "<|im_end|>")])
def test_answers_end_with_the_token_that_the_template_writes(chat: str, stop: str) -> None:
    tokenizer = chat_tokenizer(chat, bos_token="<|im_start|>")
    template = make_template("chat", tokenizer)
    assert template.stop_ids[0] == tokenizer.convert_tokens_to_ids(stop)
    assert tokenizer.eos_token_id in template.stop_ids
    messages = LONG[1:]
    tokens, answers = tokens_of(template, messages)
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(messages, tokenize=False)
    for number, (start, end) in enumerate(answers):
        assert tokens[:start] == tokens_of(template, messages[: 1 + 2 * number])[0]
        assert tokens[end - 1] == template.stop_ids[0]
        assert TEXTS[number][1].strip() in tokenizer.decode(tokens[start:end])
        assert tokens[start:end].count(template.stop_ids[0]) == 1


def test_no_chat_template() -> None:
    with pytest.raises(UsageError, match=r"no chat template; choose the template paper"):
        make_template("chat", build_tokenizer())


@pytest.mark.parametrize(
    ("chat", "complaint"),
    [
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "does not end an answer with a special token"),
        ("{{ raise_exception('no thanks') }}", "refuses every conversation: no thanks"),
        ("{% for m in messages %", "refuses every conversation"),
        ("{{ nothing.at.all }}", "refuses every conversation"),
    ],
)
def test_unusable_chat_templates(chat: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        make_template("chat", chat_tokenizer(chat))
    assert "\n" not in str(caught.value)


def test_a_conversation_that_the_template_refuses() -> None:
    template = ChatTemplate(chat_tokenizer(LLAMA2, bos_token="<|im_start|>"))
    with pytest.raises(UsageError, match=r"refuses line 3 of 'x': System role not supported"):
        template.render(LONG, "line 3 of 'x'")


def test_a_template_that_writes_prompts_in_two_ways() -> None:
    counts = "{{ messages | length }}" + CHATML
    with pytest.raises(UsageError, match=r"writes the prompt of row 4 in one way .* another to answer"):
        ChatTemplate(chat_tokenizer(counts)).render(LONG, "row 4")


def test_many_conversations_at_once_are_as_one_by_one(tokenizer: Any) -> None:
    template = PaperTemplate(tokenizer)
    many = [single(*pair) for pair in TEXTS] + [LONG, LONG[:4], [user("?")]]
    together = template.tokenize([template.render(messages, "row") for messages in many])
    assert together == [template.tokenize([template.render(messages, "row")])[0] for messages in many]
    assert template.tokenize([]) == []
