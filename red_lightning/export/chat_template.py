"""The prompt format of the training as a chat template, for servers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from red_lightning.data.template_base import TemplateSettings

PAPER = (
    "{{ BEGINNING }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}{% else %}"
    "{{ 'Human: ' + message['content'] + '\\n\\nAssistant:' }}{% endif %}{% endif %}{% endfor %}"
)
"""``Human: {prompt}``, a blank line, ``Assistant: {answer}`` and EOS (authors' code), as a template of transformers."""

PROBE = [
    {"role": "user", "content": "Where is the pub?"},
    {"role": "assistant", "content": "By the river."},
    {"role": "user", "content": "Thanks"},
]
"""A conversation whose tokens, after one turn and after all, must be those of training."""


FOLD = (
    "{% if messages[0]['role'] == 'system' and messages | length > 1 %}{% set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{% endif %}"
)
"""Puts a system message before the text of the first user message."""


def write_template(folder: Path, data: Mapping[str, Any]) -> list[str]:
    """Give a tokenizer in a folder the template of the training, in place of any other.

    Training tokenizes the paper's text alone and puts BOS before it; servers tokenize both at once, where some
    tokenizers (the newer Llama's) want a space between the two for the same tokens. Of the spellings the one that gives
    them is taken. A chat template gets the options of the training at its beginning.

    Args:
        folder: It.
        data: The ``data`` of an adapter's record.

    Returns:
        What to know of it, one sentence each: if no spelling gives the tokens of training, there is no template.
    """
    from red_lightning.data.prompt_templates import make_template  # which imports lightning, and takes seconds

    name, settings = data.get("template"), TemplateSettings.recorded(data)
    if name not in ("paper", "chat") or (name == "chat" and not settings.changed.keys() - {"split_special_tokens"}):
        return []
    ours = make_template(name, AutoTokenizer.from_pretrained(folder), settings)
    beginning = "".join(ours.tokenizer.convert_ids_to_tokens(ours.prefix))
    spellings = [PAPER.replace("BEGINNING", json.dumps(f"{beginning}{space}")) for space in ("", " ")]
    if name == "chat":
        options = "".join(f"{{% set {key} = {value!r} %}}" for key, value in settings.template_options.items())
        own = settings.chat_template or ours.tokenizer.chat_template
        spellings = [f"{options}{FOLD if settings.fold_system else ''}{own}"]
    found = next((template for template in spellings if _is_that_of_training(template, ours)), None)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config["chat_template"] = found
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if found is None:
        return ["the tokenizer has no chat template, for none gives the tokens that the model was trained on"]
    return ["the tokenizer's chat template writes the prompts that the model was trained on"]


def _is_that_of_training(template: str, ours: Any) -> bool:
    for messages in (PROBE[:1], PROBE):
        asks = messages[-1]["role"] == "user"
        text = ours.tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=asks
        )
        (trained, _), *_ = ours.tokenize([ours.render(messages, "a conversation")])
        if ours.tokenizer(text, add_special_tokens=False)["input_ids"] != trained:
            return False
    return True
