"""Chat templates that leave a part of a conversation out: it is refused by name, or counted where it is by design."""

from typing import Any

import pytest

from red_lightning.data.prompt_templates import ChatTemplate, PaperTemplate
from red_lightning.data.template_base import TemplateSettings
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer
from tests.data.test_chat_templates import (
    CHATML,
    FOUR,
    LLAMA_3,
    MISTRAL,
    MORE,
    QUESTION,
    QWEN_2_5,
    QWEN_3,
    tokenizer_with,
)

ONLY_ANSWERS = CHATML.replace("m.content", "m.content.split('</think>')[-1]")  # as the template of DeepSeek-R1
NO_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
FIRST_CALL = CHATML.replace(
    "<|im_end|>", "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments + '' }}{% endif %}<|im_end|>"
)
THOUGHTFUL = {"role": "assistant", "content": "<think>two, four</think>4"}
EMPTY = {"role": "system", "content": ""}


def calling(*names: str, content: str = "") -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": name, "arguments": {"a": name}}} for name in names]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def written(template: str, messages: list[dict[str, Any]], **settings: Any) -> str:
    return ChatTemplate(tokenizer_with(template), TemplateSettings(**settings)).render(messages, "row 1").text


@pytest.mark.parametrize(
    ("template", "messages", "what"),
    [
        (ONLY_ANSWERS, [QUESTION, THOUGHTFUL], "content of message 2"),
        (NO_SYSTEM, [{"role": "system", "content": "2"}, QUESTION, FOUR], "content of message 1"),  # 2 is in 2+2?
        (LLAMA_3, [QUESTION, calling("sum", content="s")], "content of message 2"),
        (CHATML, [{**QUESTION, "name": "Ann"}, FOUR], "'name' of message 1"),
        (CHATML, [QUESTION, {**FOUR, "thinking": "two"}], "'thinking' of message 2"),
        (FIRST_CALL, [QUESTION, calling("sum", "product")], "'tool_calls' of message 2"),
    ],
)
def test_what_a_template_leaves_out_is_refused(template: str, messages: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(UsageError, match=f"leaves out the {what} of row 1"):
        written(template, messages)


def test_thoughts_of_earlier_turns_are_counted() -> None:
    template = ChatTemplate(tokenizer_with(ONLY_ANSWERS))
    template.render([QUESTION, THOUGHTFUL, *MORE], "row 1")
    assert template.left_out == {"<think>": 1}


def test_thoughts_get_the_name_that_the_template_reads() -> None:
    texts = {
        written(QWEN_3, [QUESTION, {**FOUR, key: "two"}]) for key in ("reasoning_content", "reasoning", "thinking")
    }
    assert len(texts) == 1 and "<think>\ntwo\n</think>" in texts.pop()


def test_arguments_are_text_where_a_template_adds_them_to_text() -> None:
    assert '{"a": "sum"}<|im_end|>' in written(FIRST_CALL, [QUESTION, calling("sum")])


@pytest.mark.parametrize("template", [CHATML, QWEN_2_5])
def test_an_empty_system_message_is_passed_on(template: str) -> None:
    messages = [EMPTY, QUESTION, FOUR]
    text = tokenizer_with(template).apply_chat_template(messages, tokenize=False)
    assert written(template, messages) == text and "You are Qwen" not in text


def test_an_empty_system_message_goes_where_there_is_no_place_for_it() -> None:
    expected = written(MISTRAL, [QUESTION, FOUR])
    assert written(MISTRAL, [EMPTY, QUESTION, FOUR]) == expected
    assert written(CHATML, [EMPTY, QUESTION, FOUR], fold_system=True) == written(CHATML, [QUESTION, FOUR])
    paper = PaperTemplate(build_tokenizer())
    assert paper.render([EMPTY, QUESTION, FOUR], "row 1").text == paper.render([QUESTION, FOUR], "row 1").text


def test_an_option_that_the_template_does_not_use_is_refused() -> None:
    with pytest.raises(UsageError, match="'enable_thinkin', which the chat template does not use"):
        ChatTemplate(tokenizer_with(QWEN_3), TemplateSettings(template_options={"enable_thinkin": False}))
