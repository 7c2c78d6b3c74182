"""Model cards: metadata that the hub's own client reads, and what each kind of model says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from red_lightning.errors import UsageError
from red_lightning.export import Merged, publishable
from red_lightning.export.card_metadata import About
from red_lightning.export.model_card import write_card
from red_lightning.export.publishable import licence_of, public_record, published_backbone, trained_by

RECORD: dict[str, Any] = {
    "format": 1,
    "backbone": "FacebookAI/roberta-base",
    "commit": "a" * 40,
    "fingerprint": "b" * 16,
    "architecture": {"num_hidden_layers": 12},
    "method": {"name": "RED", "sites": ["ffn"], "vectors": "both", "layers": None},
    "task": "Classification",
    "labels": ["no|yes", "<b>"],
    "head": {"pooling": "first", "hidden": True, "dropout": 0.5},
    "data": {"class": "GLUE", "path": "nyu-mll/glue", "commit": "c" * 40, "task": "mrpc", "rows": {"train": 3668}},
    "held_out_by": {"seed": 42, "split_rule": "paper"},
    "scores": {"accuracy": 0.91234567, "F1": None},
    "seed": 42,
    "libraries": {"red-lightning": "0.1.0"},
}
SHAPES = {"a.scaling": (768,), "a.bias": (768,), "head.out_proj.weight": (2, 768), "head.out_proj.bias": (2,)}
MERGED = Merged(Path("x"), "AutoModelForCausalLM", "GPT2LMHeadModel", "float32", 10, ["a note"])


def card_of(merged: Merged | None = None, licence: dict[str, str] | None = None, **changes: Any) -> ModelCard:
    record = {name: value for name, value in {**RECORD, **changes}.items() if value != "absent"}
    about = About("me/mine", record, SHAPES, {"learning_rate": 0.001}, {}, licence or {}, 100_000_000, merged)
    return ModelCard(write_card(about))


def test_the_hubs_client_reads_the_metadata() -> None:
    data = card_of().data
    assert (data.base_model, data.base_model_relation) == ("FacebookAI/roberta-base", "adapter")
    assert (data.library_name, data.pipeline_tag) == ("red_lightning", "text-classification")
    assert {"representation-editing", "red", "parameter-efficient-fine-tuning"} <= {*data.tags}
    assert data.datasets == ["nyu-mll/glue"]
    assert data.language is None and data.license is None
    (result,) = data.eval_results or ()
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("accuracy", 0.912346, "nyu-mll/glue")
    assert (result.dataset_config, result.dataset_revision) == ("mrpc", "c" * 40)


def test_what_was_edited_is_counted() -> None:
    text = card_of().text
    assert "| learned | 2 vectors, 1,536 numbers, 0.0015% of the backbone's 100,000,000 |" in text
    assert "| layers | all 12 |" in text and "| sites | ffn |" in text
    assert "1,538 numbers besides (pooling: first, hidden: yes, dropout: 0.5)" in text
    assert "| labels | no\\|yes, &lt;b> |" in text  # one row of one table
    assert "| accuracy | 0.9123 |" in text and "F1" not in text
    assert "2402.15179" in text


@pytest.mark.parametrize(
    ("task", "changes", "pipeline", "line"),
    [
        ("Classification", {}, "text-classification", 'label = record["labels"][int(logits.argmax())]'),
        ("Classification", {"labels": []}, "text-classification", "value = logits.item()"),
        ("Classification", {"head": None}, "feature-extraction", "backbone(**inputs).last_hidden_state"),
        ("TextToTextClassification", {"head": "absent", "targets": "number"}, "text-classification", "the number of a"),
        ("DataToText", {"head": "absent"}, "text-generation", 'generate me/mine --prompt "name[Aromi], food[Chinese]"'),
        ("InstructionTuning", {"head": "absent"}, "text-generation", "python -m red_lightning chat me/mine"),
        (None, {"head": "absent"}, None, 'red_lightning.load("me/mine")'),
    ],
)
def test_each_task_says_how_it_is_used(task: str | None, changes: dict[str, Any], pipeline: Any, line: str) -> None:
    card = card_of(task=task, **changes)
    assert card.data.pipeline_tag == pipeline
    assert line in card.text


def test_the_lines_of_python_are_python() -> None:
    for task, changes in (("Classification", {}), ("Classification", {"head": None}), ("DataToText", {"head": None})):
        for block in card_of(task=task, **changes).text.split("```python\n")[1:]:
            compile(block.split("```")[0], "card", "exec")


def test_a_merged_model_is_a_plain_one() -> None:
    card = card_of(MERGED, task="InstructionTuning", head=None, data={"class": "Instructions", "template": "paper"})
    assert (card.data.library_name, card.data.base_model_relation) == ("transformers", "finetune")
    assert 'model = AutoModelForCausalLM.from_pretrained("me/mine")' in card.text
    assert "\nA note." in card.text and "red_lightning.load" not in card.text
    assert card_of(MERGED._replace(auto="AutoModel")).data.pipeline_tag == "feature-extraction"


@pytest.mark.parametrize("merged", [None, MERGED], ids=["edits", "merged"])
def test_the_card_on_a_branch_loads_that_branch(merged: Merged | None) -> None:
    record = {**RECORD, "task": "InstructionTuning", "head": None}
    text = write_card(About("me/mine", record, SHAPES, {}, {}, {}, None, merged, "trial"))
    calls = [line for line in text.splitlines() if '("me/mine"' in line]
    assert calls and all('("me/mine", revision="trial")' in line for line in calls)
    commands = [line for line in text.splitlines() if line.startswith("python -m red_lightning")]
    assert bool(commands) == (merged is None) and all("me/mine --revision trial" in line for line in commands)


def test_a_licence_is_stated_or_said_to_be_unknown() -> None:
    assert "Its licence is not known here" in card_of().text
    card = card_of(licence={"license": "other", "license_name": "llama2", "license_link": "https://x.org/l"})
    assert (card.data.license, card.data.license_name) == ("other", "llama2")
    assert "Licence: [llama2](https://x.org/l)." in card.text


def test_scores_of_validation_rows_are_called_so() -> None:
    data = {"class": "Instructions", "files": {"train": "a.jsonl", "validation": None, "test": None}}
    card = card_of(data=data, held_out_by={"seed": 1, "validation_size": 0.05})
    assert "Measured on the validation rows" in card.text
    assert (card.data.eval_results or ())[0].dataset_name == "Instructions, validation rows"
    assert "Measured on the test rows" in card_of(data=data, held_out_by={"test_share": 0.1}).text
    assert card.data.datasets is None


def test_origins_of_combined_and_imported_edits() -> None:
    sources = [{"edits": "a", "weight": 0.25, "record": {"scores": {"BLEU": 0.5}}}, {"edits": "b", "weight": -1.0}]
    text = card_of(combined={"how": "sum", "sources": sources}, scores="absent").text
    assert "| a | 0.25 | BLEU 0.5 |\n| b | -1 |  |" in text
    imported = {"file": "delta_vector.pth", "sha256": "d" * 64}
    text = card_of(imported=imported, scores="absent", data="absent", held_out_by="absent").text
    assert f"Imported from `delta_vector.pth` (SHA-256 `{'d' * 64}`)" in text
    assert "## Results" not in text and "## Data" not in text


def test_other_methods_have_their_own_tags() -> None:
    card = card_of(method={"name": "LoRA", "rank": 8})
    assert "lora" in card.data.tags and "representation-editing" not in card.data.tags
    assert "| rank | 8 |" in card.text and "2402.15179" not in card.text
    assert "parameter-efficient-fine-tuning" not in card_of(method={"name": "FullFineTuning"}).data.tags


@pytest.mark.parametrize("task", ["DataToText", "InstructionTuning"])
def test_what_writes_is_shown_with_a_writer(task: str) -> None:
    text = card_of(task=task, head=None, labels=None).text
    assert 'writer = Writer(red_lightning.load("me/mine"))\nprint(writer.write(["' in text
    assert "backbone.generate" not in text and "python -m red_lightning generate me/mine --prompt" in text


def test_the_shipped_backbone_is_no_hub_model() -> None:
    card = card_of(backbone="quickstart", commit=None)
    assert card.data.base_model is None and card.data.get("base_model_relation") is None
    assert published_backbone({"backbone": "quickstart", "commit": None}, None) == ("quickstart", None)


def test_a_public_record_has_no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishable.hub, "offline", lambda: True)
    inner = {"backbone": "/home/al ice/m", "commit": None, "labels": ["/pol/"], "data": {"path": "/home/al ice/glue"}}
    record = {
        **inner,
        "method": {"name": "SteeringVectors", "pairs": "../al ice/pairs.jsonl"},
        "data": {"files": {"train": "rows/alice/train.csv", "test": None}, "note": "made with /home/alice/x.py today"},
        "combined": {"how": "sum", "sources": [{"edits": "/home/alice/runs/a", "weight": 1.0, "record": inner}]},
        "mine": ["~/alice/b", "https://example.org/alicia/c", "file:///home/alice/d", "nyu-mll/glue"],
    }
    before = json.dumps(record)
    public = public_record(record, "org/model", "e" * 40)
    text = json.dumps(public)
    assert "alice" not in text and "al ice" not in text and "home" not in text
    assert public["data"] == {"files": {"train": "train.csv", "test": None}, "note": "made with x.py today"}
    assert public["mine"] == ["b", "https://example.org/alicia/c", "d", "nyu-mll/glue"]
    assert public["labels"] == ["/pol/"] and public["method"]["pairs"] == "pairs.jsonl"
    (source,) = public["combined"]["sources"]
    assert source["edits"] == "a" and source["record"]["data"] == {"path": "glue"}
    assert (source["record"]["backbone"], source["record"]["commit"]) == ("org/model", "e" * 40)
    assert json.dumps(record) == before


def test_combined_edits_name_no_folders() -> None:
    inner = {"backbone": "b", "commit": None, "method": {"name": "SteeringVector", "pairs": "clients/acme/pairs.jsonl"}}
    sources = [
        {"edits": "clients/acme/secret", "commit": None, "weight": 1.0, "record": inner},
        {"edits": "me/thai", "commit": "f" * 40, "weight": 1.0, "record": inner},
    ]
    public = public_record({**inner, "combined": {"how": "sum", "sources": sources}}, "org/model", "e" * 40)
    assert [source["edits"] for source in public["combined"]["sources"]] == ["secret", "me/thai"]
    assert "acme" not in json.dumps(public) and public["method"]["pairs"] == "pairs.jsonl"


def test_settings_are_only_those_that_are_listed(tmp_path: Path) -> None:
    config = {
        "model": {"init_args": {"learning_rate": 0.1, "warmup_ratio": None, "backbone": "/home/alice/m"}},
        "data": {"init_args": {"train_file": "/home/alice/a", "max_length": 9}},
        "trainer": {"precision": "bf16-true", "default_root_dir": "/home/alice", "logger": {"token": "secret"}},
    }
    (tmp_path / "edits").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert trained_by(tmp_path / "edits").settings == {"learning_rate": 0.1, "max_length": 9, "precision": "bf16-true"}
    assert trained_by(tmp_path) == ({}, {})
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"results\.json' cannot be read"):
        trained_by(tmp_path / "edits")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nlicense: mit\n---\n# x", {"license": "mit"}),
        ("# no metadata", {}),
        ("---\nlicense_name: x\n---\n", {}),
        ("---\n: [\n---\n", {}),
        ("---\n- a\n---\n", {}),
    ],
)
def test_a_licence_is_what_the_backbones_card_says(
    text: str, said: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(publishable, "hf_hub_download", lambda *_, **__: str(tmp_path / "README.md"))
    assert licence_of("org/model", None) == said


def test_a_backbone_out_of_reach_has_no_known_licence() -> None:
    assert licence_of("org/absent-from-this-machine", None) == {}  # tests are offline
