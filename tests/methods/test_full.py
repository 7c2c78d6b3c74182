"""Full fine-tuning: every weight trains, if steps are not lost in it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from red_lightning.backbones.loading import BackboneOptions, find, load_generator
from red_lightning.errors import UsageError
from red_lightning.methods import FullFineTuning, LastBlocks, Method
from tests.backbones_zoo import build
from tests.methods.guarantees import check


def test_guarantees(tmp_path: Path) -> None:
    check(FullFineTuning(), "roberta", tmp_path, in_place=True)


def test_weights_in_16_bits_are_refused() -> None:
    model = build("gpt2").bfloat16().requires_grad_(False)
    sentence = r"FullFineTuning trains the backbone's own weights.* give model\.backbone_options\.dtype float32"
    with pytest.raises(UsageError, match=sentence):
        FullFineTuning().apply(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("method", [FullFineTuning(), LastBlocks(1)], ids=lambda method: type(method).__name__)
def test_quantized_weights_are_refused(method: Method, llama_folder: Path) -> None:
    options = BackboneOptions(quantization="nf4")
    model = load_generator(find(str(llama_folder), options), options)
    with pytest.raises(UsageError, match=f"^model.method {type(method).__name__} trains .* and no quantization"):
        method.apply(model)


@pytest.mark.parametrize("method", [FullFineTuning(), LastBlocks(1)], ids=lambda method: type(method).__name__)
def test_weights_that_are_not_there_are_counted(method: Method, llama_folder: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(llama_folder), dtype=torch.bfloat16)
    assert method.apply(model)
