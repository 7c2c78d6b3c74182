"""The paper's prompt format as a chat template, for servers."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

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


def write_paper_template(folder: Path) -> str:
    """Give a tokenizer in a folder the paper's chat template, in place of any other.

    Training tokenizes the text alone and puts BOS before it; servers tokenize both at once, where some tokenizers (the
    newer Llama's) want a space between the two for the same tokens. Of the spellings the one that gives them is taken.

    Returns:
        What to know of it, one sentence: if no spelling gives the tokens of training, there is no template.
    """
    from red_lightning.data.prompt_templates import PaperTemplate  # which imports lightning, and takes seconds

    ours = PaperTemplate(AutoTokenizer.from_pretrained(folder))
    beginning = "".join(ours.tokenizer.convert_ids_to_tokens(ours.prefix))
    spellings = [PAPER.replace("BEGINNING", json.dumps(f"{beginning}{space}")) for space in ("", " ")]
    found = next((template for template in spellings if _is_that_of_training(template, ours)), None)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config["chat_template"] = found
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if found is None:
        return "the tokenizer has no chat template, for none gives the tokens that the model was trained on"
    return "the tokenizer's chat template writes the prompts that the model was trained on"


def _is_that_of_training(template: str, ours: Any) -> bool:
    for messages in (PROBE[:1], PROBE):
        text = ours.tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        (trained, _), *_ = ours.tokenize([ours.render(messages, "")])
        if ours.tokenizer(text, add_special_tokens=False)["input_ids"] != trained:
            return False
    return True
