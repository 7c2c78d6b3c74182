"""Chat templates of common families: texts written by hand, and the masks of TRL where it is installed."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from red_lightning.data.prompt_templates import ChatTemplate
from red_lightning.data.template_base import TemplateSettings
from red_lightning.errors import UsageError
from tests.backbones_zoo import build_tokenizer

QUESTION = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4"}
MORE = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "sum", "parameters": {}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "sum", "arguments": {"a": 2}}}]}
RESULT = {"role": "tool", "content": "4!", "tool_call_id": "1"}

LLAMA_2 = (
    "{% set n = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set n.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + n.system + m.content + ' [/INST]' }}{% set n.system = '' %}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.tool_calls %}"
    "<|python_tag|>{{ m.tool_calls | tojson }}<|eom_id|>{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_2_5 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
    "{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_3 = (
    "{% set n = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set n.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > n.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}{{ raise_exception('Only user and assistant "
    "roles are supported, not system') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GPT_OSS = (
    "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' else '' }}<|message|>"
    "{{ m.content }}{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
CONTROL = re.compile(r"<\|[a-z_]+\|>|<(?:start|end)_of_turn>|</?s>")
HAND_WRITTEN = [
    # the template, the conversation, its text with [[ before and ]] behind each answer
    (LLAMA_2, [QUESTION, FOUR], "<s>[INST] 2+2? [/INST][[ 4 </s>]]"),
    (
        LLAMA_2,
        [SYSTEM, QUESTION, FOUR, *MORE],
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+2? [/INST][[ 4 </s>]]<s>[INST] Sure? [/INST][[ Yes. </s>]]",
    ),
    (
        LLAMA_3,
        [SYSTEM, QUESTION, FOUR],
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[[4<|eot_id|>]]",
    ),
    (
        LLAMA_3,
        [QUESTION, CALL, {"role": "tool", "content": "4!"}, FOUR],
        "<s><|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '[[<|python_tag|>[{"function": {"name": "sum", "arguments": {"a": 2}}}]<|eom_id|>]]'
        "<|start_header_id|>tool<|end_header_id|>\n\n4!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "[[4<|eot_id|>]]",
    ),
    (
        CHATML,
        [FOUR, QUESTION, FOUR],
        "<|im_start|>assistant\n[[4<|im_end|>]]\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
        "[[4<|im_end|>]]\n",
    ),
    (
        QWEN_2_5,
        [QUESTION, CALL, FOUR],
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
        '[[<tool_call>{"name": "sum", "arguments": {"a": 2}}</tool_call><|im_end|>]]\n<|im_start|>assistant\n'
        "[[4<|im_end|>]]\n",
    ),
    (
        QWEN_3,
        [QUESTION, {**FOUR, "reasoning_content": "two, four"}],
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n[[<think>\ntwo, four\n</think>\n\n4<|im_end|>]]\n",
    ),
    (
        QWEN_3,
        [QUESTION, {**FOUR, "reasoning_content": "two, four"}, *MORE],
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n[[4<|im_end|>]]\n<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\n[[<think>\n\n</think>\n\nYes.<|im_end|>]]\n",
    ),
    (MISTRAL, [QUESTION, FOUR, *MORE], "<s>[INST] 2+2? [/INST][[4</s>]][INST] Sure? [/INST][[Yes.</s>]]"),
    (
        GEMMA,
        [QUESTION, FOUR],
        "<s><start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n[[4<end_of_turn>]]\n",
    ),
    (
        GPT_OSS,
        [QUESTION, {**FOUR, "weight": 0}, *MORE],
        "<|start|>user<|message|>2+2?<|end|><|start|>assistant[[<|channel|>final<|message|>4<|end|>]]<|start|>user"
        "<|message|>Sure?<|end|><|start|>assistant[[<|channel|>final<|message|>Yes.<|return|>]]",
    ),
]


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes whose special tokens are those that the template writes."""
    tokenizer = build_tokenizer()
    special = {*CONTROL.findall(template), "<s>", "</s>"}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(special)})
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.chat_template = template
    return tokenizer


def tokens_of(template: ChatTemplate, messages: list[dict[str, Any]], tools: Any = None) -> tuple[list[int], Any]:
    return template.tokenize([template.render(messages, "row 1", tools)])[0]


@pytest.mark.parametrize(("chat", "messages", "expected"), HAND_WRITTEN)
def test_tokens_and_answers_are_those_written_by_hand(chat: str, messages: list[dict[str, Any]], expected: str) -> None:
    tokenizer = tokenizer_with(chat)
    tokens, answers = tokens_of(ChatTemplate(tokenizer), messages)
    known = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    assert tokens == tokenizer.apply_chat_template(known, tokenize=True, return_dict=False)
    shown, past = "", 0
    for answer in answers:
        shown += tokenizer.decode(tokens[past : answer.start]) + "[["
        shown += tokenizer.decode(tokens[answer.start : answer.end]) + "]]"
        past = answer.end
    assert shown + tokenizer.decode(tokens[past:]) == expected
    assert [answer.learned for answer in answers] == [
        m.get("weight", 1) == 1 for m in messages if m["role"] == "assistant"
    ]


def test_every_end_of_an_answer_stops_generation() -> None:
    for chat, ends in ((LLAMA_3, ["<|eot_id|>", "</s>", "<|eom_id|>"]), (GPT_OSS, ["<|return|>", "</s>"])):
        tokenizer = tokenizer_with(chat)
        assert ChatTemplate(tokenizer).stop_ids == tokenizer.convert_tokens_to_ids(ends)


def test_what_a_template_leaves_out_is_refused() -> None:
    qwen, plain = ChatTemplate(tokenizer_with(QWEN_2_5)), ChatTemplate(tokenizer_with(CHATML))
    assert '"name": "sum", "parameters"' in qwen.render([QUESTION, FOUR], "row 1", [TOOL]).text
    for messages, tools, missing in (
        ([QUESTION, FOUR], [TOOL], "the tools of line 7"),
        ([QUESTION, CALL, RESULT, FOUR], None, "the 'tool_calls' of message 2 of line 7"),
        ([QUESTION, {**FOUR, "reasoning_content": "hm"}], None, "the 'reasoning_content' of message 2 of line 7"),
    ):
        with pytest.raises(UsageError, match=f"leaves out {re.escape(missing)}"):
            plain.render(messages, "line 7", tools)
    thinks = ChatTemplate(tokenizer_with(QWEN_3))
    thinks.render([QUESTION, {**FOUR, "reasoning_content": "hm"}, *MORE], "line 7")
    qwen.render([QUESTION, CALL, RESULT, FOUR], "line 7")
    assert thinks.left_out == {"reasoning_content": 1} and qwen.left_out == {"tool_call_id": 1}


def test_thinking_is_an_option_of_the_template() -> None:
    tokenizer = tokenizer_with(QWEN_3)
    quiet = ChatTemplate(tokenizer, TemplateSettings(template_options={"enable_thinking": False}))
    assert quiet.render([QUESTION], "row 1").text.endswith("assistant\n<think>\n\n</think>\n\n")
    tokens, [answer] = tokens_of(quiet, [QUESTION, FOUR])
    assert tokenizer.decode(tokens[answer.start : answer.end]) == "4<|im_end|>"
    assert tokens[: answer.start] == tokens_of(quiet, [QUESTION])[0]
    with pytest.raises(UsageError, match=r"one way to train .* other data\.template_options"):
        quiet.render([QUESTION, FOUR, *MORE], "row 1")
    asked = [QUESTION, FOUR, MORE[0]]
    assert quiet.render(asked, "row 1").text == tokenizer.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert [answer.message for answer in quiet.render([QUESTION, {**FOUR, "weight": 0}, *MORE], "row 1").answers] == [3]


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")
@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3", "gemma", "phi3", "cohere"])
@pytest.mark.parametrize("messages", [[QUESTION, FOUR], [QUESTION, FOUR, *MORE]])
def test_answers_are_those_that_trl_marks(name: str, messages: list[dict[str, Any]]) -> None:
    """TRL also learns the newline behind an answer, which nothing generates once the answer has ended."""
    folder = Path(str(importlib.util.find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
    tokenizer = build_tokenizer()
    text, marked = ((folder / f"{name}{kind}.jinja").read_text(encoding="utf-8") for kind in ("", "_training"))
    tokenizer.add_special_tokens({"additional_special_tokens": sorted({*re.findall(r"<\|\w+\|>|<\w+_of_turn>", text)})})
    tokenizer.chat_template, tokenizer.bos_token = text, "<eos>"
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=marked, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    tokens, answers = tokens_of(ChatTemplate(tokenizer), messages)
    if name == "qwen3" and len(messages) > 2:
        pytest.skip("the template that TRL trains with differs from the model's")
    assert tokens == theirs["input_ids"]
    ours = {n for answer in answers for n in range(answer.start, answer.end)}
    other = {n for n, learned in enumerate(theirs["assistant_masks"]) if learned} ^ ours
    assert {tokenizer.decode(tokens[n]) for n in other} <= {"\n", "<eos>"}
