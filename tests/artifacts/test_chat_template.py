"""Servers ask a merged model in the words that it was tuned on."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from red_lightning.artifacts import export_merged, read_edits, save_edits
from red_lightning.data.templates import PaperTemplate
from red_lightning.methods import RED
from tests.artifacts.exports import trained
from tests.backbones_zoo import build_tokenizer, save_backbone

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is Thai food?"},
    {"role": "assistant", "content": "By the riverside."},
    {"role": "user", "content": "And French?"},
]


@pytest.mark.parametrize("messages", [TURNS, TURNS[1:2], TURNS[1:], TURNS[:3]])
@pytest.mark.parametrize("begins", [False, True])
def test_the_template_is_that_of_training(messages: list[dict[str, str]], begins: bool, tmp_path: Path) -> None:
    backbone = save_backbone("llama", tmp_path / "llama")
    if begins:  # texts begin with a token, as Llama's do
        tokenizer = build_tokenizer()
        tokenizer.bos_token = "<eos>"
        tokenizer._tokenizer.post_processor = _begin_with("<eos>", 0)
        tokenizer.save_pretrained(backbone)
    (backbone / "chat_template.jinja").write_text("another", encoding="utf-8")
    trained(tmp_path / "run", backbone, RED())
    tensors, record = read_edits(tmp_path / "run" / "edits")
    save_edits(tmp_path / "run" / "edits", tensors, {**record, "data": {"template": "paper"}})
    export_merged(tmp_path / "run", tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ours = PaperTemplate(AutoTokenizer.from_pretrained(backbone))
    assert len(ours.prefix) == begins
    (tokens, _), *_ = ours.tokenize([ours.render(messages, "here")])
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer(asked, add_special_tokens=False)["input_ids"] == tokens


def _begin_with(token: str, number: int) -> object:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])
