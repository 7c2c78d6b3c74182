"""Facts of the records that loading, import and export read, against transformers' own code and files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from red_lightning.backbones.loading import BackboneOptions, find, load_encoder, load_generator
from red_lightning.backbones.weight_files import find_places
from red_lightning.export.equivalents import older_names
from red_lightning.families import ARCHITECTURES, Architecture, record_of
from tests.backbones_zoo import save_backbone


@pytest.mark.parametrize("record", ARCHITECTURES, ids=lambda record: record.name)
def test_facts_by_model_type_are_of_the_familys_own(record: Architecture) -> None:
    for facts in (record.classifiers, record.fused_ffns, record.equivalents, record.llama_cpp):
        assert {*facts} <= {*record.model_types}


@pytest.mark.parametrize("record", [record for record in ARCHITECTURES if record.equivalents], ids=lambda r: r.name)
def test_an_equivalent_shares_the_fields_that_it_names(record: Architecture) -> None:
    for model_type, equivalent in record.equivalents.items():
        ours, other = AutoConfig.for_model(model_type), AutoConfig.for_model(equivalent.model_type)
        assert [name for name in equivalent.fields if not hasattr(other, name)] == []
        assert {"hidden_size", "rms_norm_eps", "vocab_size"} <= {
            name for name in equivalent.fields if hasattr(ours, name)
        }
        assert record_of(other) is not None


def test_big_bird_reads_long_texts_with_full_attention(tmp_path: Path) -> None:
    sizes = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = AutoConfig.for_model(
        "big_bird", **sizes, num_attention_heads=2, block_size=4, max_position_embeddings=128, num_random_blocks=1
    )
    assert config.attention_type == "block_sparse"
    torch.manual_seed(0)
    own = AutoModel.from_config(config).eval()
    own.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").touch()
    options = BackboneOptions()
    ours = load_encoder(find(str(tmp_path), options), options, True).eval()
    ids = torch.randint(5, 99, (1, 128), generator=torch.Generator().manual_seed(0))
    sparse = own(ids).last_hidden_state
    own.set_attention_type("original_full")
    full = own(ids).last_hidden_state
    torch.testing.assert_close(ours(ids).last_hidden_state, full)
    assert not torch.allclose(sparse, full, atol=1e-4)


def test_weights_are_found_under_the_names_of_older_files(tmp_path: Path) -> None:
    folder, options = save_backbone("gpt_neox", tmp_path / "new"), BackboneOptions()
    source = find(str(folder), options)
    model = load_generator(source, options)
    head = next(name for name, tensor in model.named_parameters() if tensor is model.get_output_embeddings().weight)
    file = Path(folder) / "model.safetensors"
    tensors = load_file(file)
    tensors["embed_out.weight"] = tensors.pop(head, tensors.get("embed_out.weight"))
    save_file(tensors, file, {"format": "pt"})
    places = find_places(source, model)
    assert places is not None and places[head] == (file, "embed_out.weight")


def test_configurations_keep_the_names_that_older_versions_read() -> None:
    gpt2 = AutoConfig.for_model("gpt2", n_positions=96, dtype="float32")
    assert older_names(gpt2)["n_ctx"] == 96
    assert "n_ctx" not in older_names(AutoConfig.for_model("llama", dtype="float32"))


def test_decoders_that_llama_cpp_runs_are_decoders() -> None:
    names = {name for record in ARCHITECTURES for name in record.llama_cpp}
    assert {"gpt2", "llama"} <= names
    for name in names:
        assert name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
