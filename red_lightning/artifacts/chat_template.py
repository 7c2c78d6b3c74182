"""The chat template of a model that was tuned on the paper's prompts, for servers that write prompts themselves."""

import json
from pathlib import Path

from transformers import AutoTokenizer

PAPER = (
    "{{ BEGINNING }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}{% else %}"
    "{{ 'Human: ' + message['content'] + '\\n\\nAssistant:' }}{% endif %}{% endif %}{% endfor %}"
)
"""``Human: {prompt}``, a blank line, ``Assistant: {answer}`` and EOS (authors' code), as a template of transformers."""


def write_paper_template(folder: Path) -> None:
    """Give a tokenizer in a folder the paper's chat template, in place of any other."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    before: list[int] = next((whole[:n] for n in range(len(whole)) if whole[n : n + len(alone)] == alone), [])
    beginning = "".join(tokenizer.convert_ids_to_tokens(before))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config["chat_template"] = PAPER.replace("BEGINNING", json.dumps(beginning))
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
