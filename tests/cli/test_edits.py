"""What real runs leave behind is what the schema says, and ``red_lightning.load`` gives the model that was tested."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import red_lightning
from red_lightning.adapters.record_checks import FIELDS, REQUIRED, wrong_field
from red_lightning.backbones.classification_head import pool
from red_lightning.backbones.quantization import is_quantized
from red_lightning.errors import UsageError
from tests.adapters.test_file_format import rewrite
from tests.adapters.test_released_files import vectors_of
from tests.backbones_zoo import build, save_backbone
from tests.cli.commands import rows, write_classifier, write_experiment
from tests.cli.conftest import CLI


def leave(cli: CLI, folder: Path, experiment: Path, **model: Any) -> tuple[red_lightning.Edited, list[dict[str, Any]]]:
    """Fit an experiment, see that its edits are as the schema says, and load them."""
    content = json.loads(experiment.read_text(encoding="utf-8"))
    content["model"]["class_path"] = model.pop("task", content["model"]["class_path"])
    content["model"]["init_args"].update(model)
    experiment.write_text(json.dumps(content), encoding="utf-8")
    done = cli("fit", "--config", experiment.name, "--run.name", "x")
    assert done.status == 0, done.err
    run = folder / "runs/x"
    record = json.loads((run / "edits/edits.json").read_text(encoding="utf-8"))
    assert {*REQUIRED} <= {*record} <= {*FIELDS}
    assert wrong_field(record) is None
    assert {"architecture", "commit", "task", "scores", "trainable_parameters", "data", "libraries"} <= {*record}
    assert sorted(file.name for file in (run / "edits").iterdir()) == ["edits.json", "edits.safetensors"]
    edited = red_lightning.load(run)
    assert edited.record == record and not edited.backbone.training
    return edited, rows(run / "test_predictions.jsonl")


@pytest.mark.parametrize(("family", "pooling"), [("roberta", "first"), ("gpt2", "last")])
def test_a_classifier_on_an_encoder_and_on_a_decoder(family: str, pooling: str, cli: CLI, tmp_path: Path) -> None:
    experiment = write_classifier(tmp_path, save_backbone(family, tmp_path / family))
    edited, predictions = leave(cli, tmp_path, experiment)
    assert edited.head is not None and edited.record["head"]["pooling"] == pooling
    for row in predictions:
        inputs = edited.tokenizer([row["text"]], return_tensors="pt")
        with torch.no_grad():
            output = edited.backbone(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            logits = edited.head(pool(output, inputs["attention_mask"], edited.record["head"]["pooling"]))
        scores = dict(zip(edited.record["labels"], logits.softmax(-1)[0].tolist(), strict=True))
        assert scores == pytest.approx(row["scores"], abs=2e-6)


def test_labels_that_a_t5_writes(cli: CLI, tmp_path: Path, t5_folder: Path) -> None:
    experiment = write_classifier(tmp_path, t5_folder)
    edited, predictions = leave(cli, tmp_path, experiment, task="TextToTextClassification")
    assert edited.head is None and edited.record["targets"] == "number"
    written = []
    for row in predictions:
        inputs = edited.tokenizer([row["text"]], return_tensors="pt")
        output = edited.backbone.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=5, do_sample=False
        )
        text = edited.tokenizer.decode(output[0], skip_special_tokens=True).strip()
        known = {str(number): name for number, name in enumerate(edited.record["labels"])}
        written.append(known.get(text))
    assert written == [row["label"] for row in predictions]


def test_texts(cli: CLI, tmp_path: Path, gpt2_folder: Path) -> None:
    edited, _ = leave(cli, tmp_path, write_experiment(tmp_path, gpt2_folder))
    assert edited.record["architecture"] == {
        "model_type": "gpt2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": 300,
    }


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_a_quantized_backbone_is_quantized_again(cli: CLI, tmp_path: Path, llama_folder: Path) -> None:
    experiment = write_experiment(tmp_path, llama_folder)
    edited, _ = leave(cli, tmp_path, experiment, backbone_options={"quantization": "nf4"})
    assert is_quantized(edited.backbone) and edited.record["quantization"] == "nf4"
    with pytest.raises(UsageError, match=r"belong to another backbone: .* quantized to nf4"):
        red_lightning.apply_edits(
            type(edited.backbone).from_pretrained(llama_folder, dtype=torch.float32), tmp_path / "runs/x/edits"
        )


def test_damaged_edits_are_one_sentence_of_every_command(cli: CLI, tmp_path: Path, gpt2_folder: Path) -> None:
    modules = [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)]
    torch.save(vectors_of(build("gpt2"), modules), tmp_path / "delta_vector.pth")
    assert cli("import", "delta_vector.pth", "--backbone", str(gpt2_folder), "--output", "e").status == 0
    file, record = tmp_path / "e/edits.safetensors", tmp_path / "e/edits.json"
    said = json.loads(record.read_text(encoding="utf-8"))
    good = {name: tensor.clone() for name, tensor in load_file(file).items()}  # old safetensors map the file itself
    name = f"{modules[0]}.scaling"
    for change, sentence in (
        ({name: torch.full((32,), torch.nan)}, f"the edits in 'e' are damaged: '{name}' holds NaN or infinite numbers"),
        ({name: torch.ones(32).int()}, f"the edits in 'e' are damaged: '{name}' is of int32, not of float32"),
        ({"../../x": torch.ones(1)}, "the edits in 'e' are damaged: '../../x' is no name of a parameter"),
    ):
        rewrite({**good, **change}, file.parent)
        assert cli("draw", "e").error == sentence
    rewrite(good, file.parent)
    record.write_text(json.dumps({**said, "format": 2}), encoding="utf-8")
    assert cli("draw", "e").error == "the edits in 'e' have the newer format 2; update red-lightning"
