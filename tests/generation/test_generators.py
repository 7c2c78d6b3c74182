"""Models that are named by a user: in which number format they are loaded, how they are asked, and what is read."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning.adapters import file_format
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.evaluation.benchmark_answers import Contestant
from red_lightning.evaluation.scored_models import find_model
from red_lightning.generation import EditBank, Writer
from red_lightning.generation.decoding_options import DecodingChanges
from red_lightning.generation.generators import open_model
from tests.adapters.test_edited import trained
from tests.backbones_zoo import build, build_tokenizer

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A model without edits in bfloat16, whose tokenizer has a chat template."""
    build("gpt2").to(torch.bfloat16).save_pretrained(tmp_path / "quickstart")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "quickstart")
    return tmp_path / "quickstart"


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (None, "bfloat16"),
        (BackboneOptions(attention="eager"), "bfloat16"),
        (BackboneOptions(dtype="float32"), "float32"),
    ],
)
def test_a_model_without_edits_is_loaded_as_its_files_are(
    options: BackboneOptions | None, dtype: str, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(merged.parent)
    found = find_model("quickstart", None, None, options)  # the folder, not the backbone that ships
    assert found.identity["dtype"] == dtype
    plain = AutoModelForCausalLM.from_pretrained(merged)
    for model in (
        open_model("quickstart", options=options),
        open_model(None, str(merged), None, options),
        found.load(),
    ):
        assert str(model.backbone.dtype) == f"torch.{dtype}"
        assert torch.equal(model.backbone.lm_head.weight.bfloat16(), plain.lm_head.weight.bfloat16())


def test_a_model_without_edits_is_asked_by_its_chat_template(merged: Path, gpt2_folder: Path) -> None:
    writer = Writer(open_model(str(merged)))
    assert writer.prompts.style == "chat"
    assert writer.edited.tokenizer.decode(writer.encode(["Who?"])[0]) == "[user]Who?<eos>[a]"
    assert Writer(open_model(str(merged)), template="plain").prompts.style == "plain"
    assert Writer(open_model(str(gpt2_folder))).prompts.style == "plain"
    asked = Contestant(find_model(str(merged), None, None, None), DecodingChanges(), None, 8, None)
    assert asked.settings["template"] == "chat"


def test_edits_are_read_once(gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "run", gpt2_folder)
    path = tmp_path / "run/edits/edits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "InstructionTuning"}))
    read = Mock(side_effect=file_format.load_file)
    monkeypatch.setattr(file_format, "load_file", read)

    def reads() -> int:
        count, read.call_count = read.call_count, 0
        return count

    run: Any = str(tmp_path / "run")
    model = open_model(run)
    assert reads() == 1
    contestant = Contestant(find_model(run, None, None, None), DecodingChanges(), None, 8, None)
    open_model(run, edited=False)
    assert reads() == 0
    contestant.writer()
    assert reads() == 1
    EditBank(build("gpt2")).add("run", run)
    assert reads() == 1 and model.record["task"] == "InstructionTuning"
