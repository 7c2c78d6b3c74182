"""Servers ask a merged model in the words that it was tuned on."""

from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from red_lightning.adapters import load, read_edits, save_edits
from red_lightning.data.prompt_templates import PaperTemplate, make_template
from red_lightning.data.template_base import TemplateSettings
from red_lightning.export import export_merged
from red_lightning.export.chat_template import write_template
from red_lightning.generation import Decoding, Writer
from red_lightning.methods import RED
from tests.backbones_zoo import WORDS, build_tokenizer, save_backbone
from tests.data.test_chat_templates import CHATML, QWEN_3, tokenizer_with
from tests.export.exports import trained

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
    notes = export_merged(tmp_path / "run", tmp_path / "merged").notes
    assert notes[-1].endswith("writes the prompts that the model was trained on")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ours = PaperTemplate(AutoTokenizer.from_pretrained(backbone))
    assert len(ours.prefix) == begins
    (tokens, _), *_ = ours.tokenize([ours.render(messages, "here")])
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer(asked, add_special_tokens=False)["input_ids"] == tokens


def as_llama(folder: Path, strip: bool = False) -> None:
    """Save a tokenizer that marks the beginning of a text by a space, but not that of what follows BOS."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    if strip:
        tokenizer.normalizer = normalizers.Strip()
    special = ["<unk>", "<s>", "</s>"]
    texts = [*WORDS * 5, "Human: a\n\nAssistant: b"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    tokenizer.post_processor = _begin_with("<s>", 1)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


@pytest.mark.parametrize("stand_in", [False, True])
@pytest.mark.parametrize("messages", [TURNS[1:2], TURNS[1:3], TURNS[1:], TURNS])
def test_what_follows_bos_begins_as_in_training(
    stand_in: bool, messages: list[dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Behind a literal ``<s>``, newer Llama tokenizers mark no beginning of a text, as in training they do."""
    if stand_in:
        folder = request.getfixturevalue("shared") / "hub/meta-llama/Llama-2-7b-hf"
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    else:
        as_llama(tmp_path)
    assert write_template(tmp_path, {"template": "paper"})[0].endswith(
        "writes the prompts that the model was trained on"
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ours = PaperTemplate(tokenizer)
    (trained_on, _), *_ = ours.tokenize([ours.render(messages, "here")])
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert asked == trained_on
    literal = tokenizer(f"<s>{ours.render(messages, 'here').text}", add_special_tokens=False)["input_ids"]
    assert stand_in or literal != asked  # transformers 5.0 reads the stand-in's as an older tokenizer


def test_no_template_is_written_that_differs_from_training(tmp_path: Path) -> None:
    as_llama(tmp_path, strip=True)
    (tmp_path / "chat_template.jinja").write_text("another", encoding="utf-8")
    assert "has no chat template" in write_template(tmp_path, {"template": "paper"})[0]
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None


def _begin_with(token: str, number: int) -> object:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])


def test_options_of_the_training_are_in_the_template(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(QWEN_3)
    tokenizer.save_pretrained(tmp_path)
    settings = TemplateSettings(template_options={"enable_thinking": False}, fold_system=True)
    (note,) = write_template(tmp_path, {"template": "chat", **settings.changed})
    assert note.endswith("writes the prompts that the model was trained on")
    written, ours = AutoTokenizer.from_pretrained(tmp_path), make_template("chat", tokenizer, settings)
    for messages in (TURNS[:2], TURNS[1:2]):
        text = written.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == ours.render(messages, "").text
    assert write_template(tmp_path, {"template": "chat"}) == []


def test_a_chat_template_stops_every_later_generation(tmp_path: Path) -> None:
    """transformers' own generate of the merged and of the loaded model ends at the template's token."""
    backbone = save_backbone("llama", tmp_path / "llama")
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(backbone)
    trained(tmp_path / "run", backbone, RED())
    tensors, record = read_edits(tmp_path / "run/edits")
    more = {"task": "InstructionTuning", "data": {"template": "chat"}, "decoding": asdict(Decoding())}
    save_edits(tmp_path / "run/edits", tensors, {**record, **more})
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    own = AutoModelForCausalLM.from_pretrained(backbone).generation_config.eos_token_id
    export_merged(tmp_path / "run", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    loaded = load(tmp_path / "run")
    for model in (merged, loaded.backbone):
        assert model.generation_config.eos_token_id[:2] == ends
        assert set(model.generation_config.eos_token_id) == {*ends, own}
    assert Writer(loaded).prompts.stop_ids == ends
