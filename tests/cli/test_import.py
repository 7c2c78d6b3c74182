"""``import``: the authors' files through the command line give the authors' logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, GPT2LMHeadModel, LlamaForCausalLM, RobertaModel, T5ForConditionalGeneration

import red_lightning
from red_lightning.adapters import read_edits
from red_lightning.adapters.record_checks import FIELDS
from red_lightning.backbones.classification_head import pool
from tests.adapters.test_released_files import WIDE, Evil, by_hooks, outputs, vectors_of
from tests.backbones_zoo import build, build_tokenizer, save_backbone
from tests.cli.commands import run_apart
from tests.cli.conftest import CLI
from tests.conftest import SHARED

ORACLES = sorted((SHARED / "oracle/forward").glob("*.pt"))
MODELS = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM, "t5": T5ForConditionalGeneration}
TASKS = {
    "gpt2": "DataToText",
    "llama": "InstructionTuning",
    "t5": "TextToTextClassification",
    "roberta": "Classification",
}


def release(oracle: dict[str, Any], folder: Path) -> list[str]:
    """Write an oracle's backbone and vectors as files, and return the command line that imports them."""
    config = AutoConfig.for_model(**json.loads(oracle["config"]))
    model = MODELS[oracle["arch"]](config) if oracle["arch"] in MODELS else RobertaModel(config, False)
    model.load_state_dict(oracle["base_state"])
    model.save_pretrained(folder / "backbone")
    build_tokenizer().save_pretrained(folder / "backbone")
    torch.save(oracle["delta"], folder / "delta_vector.pth")
    line = ["import", "delta_vector.pth", "--backbone", "backbone", "--output", "out"]
    if "classifier" in oracle:
        torch.save(oracle["classifier"], folder / "classifier.pth")
        line += ["--classifier", "classifier.pth", "--labels", "[entails, neutral, contradicts]"]
    return line


@pytest.mark.skipif(not ORACLES, reason="the reference material is not beside the repository")
@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_the_authors_logits(path: Path, cli: CLI, tmp_path: Path) -> None:
    oracle = torch.load(path, weights_only=True)
    done = cli(*release(oracle, tmp_path))
    assert done.status == 0, done.err
    assert f"{oracle['trainable']:,} numbers" in done.out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["edits.json", "edits.safetensors"]
    edited = red_lightning.load("out")
    assert edited.record["task"] == TASKS[oracle["arch"]]
    assert edited.record["trainable_parameters"] == oracle["trainable"]
    inputs = {"input_ids": oracle["inputs"]["input_ids"]}
    if oracle["arch"] != "gpt2":
        inputs["attention_mask"] = oracle["inputs"]["attention_mask"]
    if oracle["arch"] == "t5":
        inputs["labels"] = oracle["inputs"]["labels"]
    with torch.no_grad():
        output = edited.backbone(**inputs)
        if edited.head is None:
            logits = output.logits
        else:
            assert edited.record["labels"] == ["entails", "neutral", "contradicts"]
            logits = edited.head(pool(output, inputs["attention_mask"], edited.record["head"]["pooling"]))
    torch.testing.assert_close(logits.float(), oracle["logits"].float(), atol=1e-5, rtol=0)
    assert not torch.allclose(logits.float(), oracle["base_logits"].float(), atol=1e-3)
    tensors, record = read_edits("out")
    assert {*record} <= {*FIELDS} and all(tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A GPT-2's folder in the working folder, and vectors of it."""
    saved = vectors_of(build("gpt2"), [f"transformer.h.{layer}.mlp.c_proj" for layer in (0, 1)])
    torch.save(saved, tmp_path / "delta_vector.pth")
    return save_backbone("gpt2", tmp_path / "backbone")


LINE = ("import", "delta_vector.pth", "--backbone", "backbone", "--output", "out")


def test_every_other_command_takes_the_result(gpt2: Path, cli: CLI, tmp_path: Path) -> None:
    assert cli(*LINE).status == 0
    pytest.importorskip("matplotlib")
    done = cli("draw", "--edits", "out")
    assert done.status == 0, done.err
    assert "the set of edits 'org/none' is not on this machine" in cli("draw", "org/none").error  # or it is fetched
    record = json.loads((tmp_path / "out/edits.json").read_text(encoding="utf-8"))
    assert record["imported"]["file"] == "delta_vector.pth" and len(record["imported"]["sha256"]) == 64


def test_what_is_missing_or_does_not_belong_is_named(gpt2: Path, cli: CLI, tmp_path: Path) -> None:
    for wrong, sentence in (
        (LINE[:1] + LINE[2:], "give --vectors"),
        (LINE[:2] + LINE[4:], "give --backbone"),
        (LINE[:4], "give --output"),
        ((*LINE, "--vectors", "absent.pth"), "the file 'absent.pth' does not exist"),
        ((*LINE, "--vectors", "backbone"), "'backbone' is a folder; give the file in it"),
        ((*LINE, "--labels", "[a, b]"), "labels are for a classifier or an encoder-decoder"),
        ((*LINE, "--task", "mnli"), "labels are for a classifier or an encoder-decoder"),
        ((*LINE, "--classifier", "delta_vector.pth"), "a classifier belongs to an encoder"),
        ((*LINE, "--backbone", "./absent"), "the folder './absent' does not exist"),
    ):
        assert sentence in cli(*wrong).error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "delta_vector.pth"]


def test_what_the_output_holds_is_not_lost(gpt2: Path, cli: CLI, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "'out' holds something already" in cli(*LINE).error
    assert (out / "thesis.txt").read_text() == "mine" and len(list(out.iterdir())) == 1
    (out / "thesis.txt").unlink()
    assert cli(*LINE).status == 0  # an empty folder will do
    before = (out / "edits.safetensors").read_bytes()
    assert "holds something already" in cli(*LINE).error
    assert (out / "edits.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert "holds something already" in cli(*LINE[:-1], "file").error
    assert "cannot be written" in cli(*LINE[:-1], "file/out").error
    assert (tmp_path / "file").read_text() == "mine"


def test_labels_of_a_t5(cli: CLI, tmp_path: Path) -> None:
    backbone = build("t5")
    names = [f"encoder.block.{layer}.layer.1.DenseReluDense.wo" for layer in (0, 1)]
    names += [f"decoder.block.{layer}.layer.2.DenseReluDense.wo" for layer in (0, 1)]
    torch.save(vectors_of(backbone, names), tmp_path / "delta_vector.pth")
    save_backbone("t5", tmp_path / "backbone")
    assert cli(*LINE, "--task", "rte").status == 0
    record = red_lightning.load("out").record
    assert record["labels"] == ["entailment", "not_entailment"]
    assert record["targets"] == "number"
    for wrong, sentence in (
        (["--task", "rtee"], "unknown GLUE task 'rtee': did you mean 'rte'?"),
        (["--task", "rte", "--labels", "[a, b]"], "--task rte says the labels"),
        (["--layers", "[7]"], "layers [7] do not exist"),
        (["--classifier", "delta_vector.pth"], "a classifier belongs to an encoder"),
        (["--backbone", "absent/"], "absent/"),
    ):
        assert sentence in cli(*LINE[:-1], "other", *wrong).error
    assert not (tmp_path / "other").exists()


def test_an_encoder_with_and_without_its_classifier(cli: CLI, tmp_path: Path) -> None:
    names = [f"encoder.layer.{layer}.output.dense" for layer in (0, 1)]
    torch.save(vectors_of(build("roberta"), names), tmp_path / "delta_vector.pth")
    save_backbone("roberta", tmp_path / "backbone")
    assert cli(*LINE, "--task", "mnli").status == 0
    edited = red_lightning.load("out")
    assert edited.head is None and edited.record["labels"] == ["entailment", "neutral", "contradiction"]
    assert edited.backbone(torch.tensor([[5, 6]])).last_hidden_state.shape == (1, 2, 32)
    head = {"dense.weight": torch.ones(32, 32), "dense.bias": torch.ones(32)}
    for count, labels in ((1, []), (3, ["0", "1", "2"])):
        head |= {"out_proj.weight": torch.ones(count, 32), "out_proj.bias": torch.ones(count)}
        torch.save(head, tmp_path / "classifier.pth")
        assert cli(*LINE[:-1], str(count), "--classifier", "classifier.pth").status == 0
        edited = red_lightning.load(str(count))
        assert edited.record["labels"] == labels and edited.head is not None
    wrong = cli(*LINE[:-1], "other", "--classifier", "classifier.pth", "--task", "rte").error
    assert "the classifier tells 3 classes, but 2 labels are given" in wrong


def test_a_malicious_file_through_a_process_of_its_own(gpt2: Path, tmp_path: Path) -> None:
    torch.save(Evil(tmp_path / "written"), tmp_path / "delta_vector.pth")
    done = run_apart(tmp_path, *LINE)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: 'delta_vector.pth' is refused: it asks for '") and not done.stdout
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "written").exists() and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_the_released_files_through_the_command_line(name: str, shared: Path, cli: CLI, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = WIDE[name]().eval()
    plain.save_pretrained(tmp_path / "backbone")
    build_tokenizer().save_pretrained(tmp_path / "backbone")
    folder = shared / "authors" / name
    line = ["import", str(folder / "delta_vector.pth"), "--backbone", "backbone", "--output", "out"]
    if (folder / "classifier.pth").exists():
        line += ["--classifier", str(folder / "classifier.pth")]
    done = cli(*line, *(["--task", "mnli"] if name.endswith("mnli") else []))
    assert done.status == 0, done.err
    edited = red_lightning.load("out")
    saved = torch.load(folder / "delta_vector.pth", map_location="cpu", weights_only=True)
    by_hooks(plain, saved)
    expected = outputs(plain)
    torch.testing.assert_close(outputs(edited.backbone), expected, atol=2e-5, rtol=1e-5)
    if name.endswith("mnli"):
        assert edited.record["labels"] == ["entailment", "neutral", "contradiction"]
    if edited.head is not None:
        head = torch.load(folder / "classifier.pth", map_location="cpu", weights_only=True)
        hidden = torch.tanh(expected[:, 0] @ head["dense.weight"].T + head["dense.bias"])
        logits = hidden @ head["out_proj.weight"].T + head["out_proj.bias"]
        with torch.no_grad():
            torch.testing.assert_close(edited.head(expected[:, 0]), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("roberta_base_mnli", "FacebookAI/roberta-base"),
        ("gpt2_medium", "openai-community/gpt2-medium"),
        ("t5_base_mnli", "google-t5/t5-base"),
    ],
)
def test_the_released_files_are_not_of_the_tiny_stand_ins(name: str, place: str, shared: Path, cli: CLI) -> None:
    file = str(shared / "authors" / name / "delta_vector.pth")
    sentence = cli("import", file, "--backbone", str(shared / "hub" / place), "--output", "out").error
    assert "is not of this" in sentence and "of 2 layers" in sentence
