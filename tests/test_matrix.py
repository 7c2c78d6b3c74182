"""Every method in every task on every model family: a cell runs, or the table of limits says why not."""

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from red_lightning import methods, tasks
from red_lightning.adapters import apply_edits, save_edits
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.methods import Method
from red_lightning.tasks import BackboneTask
from tests.backbones_zoo import FAMILIES, MASKED, build, save_backbone
from tests.conversations import Conversations, tuning
from tests.families.readers_zoo import ENCODER_DECODERS, ENCODERS
from tests.labeled import CLASSIFIERS, make_classifier, make_labeled_data, make_writer
from tests.training import make_data, make_task

METHODS = methods.shipped()
OPTIONS: dict[str, dict[str, Any]] = {
    "AdaLoRA": {"target_rank": 1, "initial_rank": 2, "interval": 1},
    "Adapter": {"rank": 2},
    "AdapterDrop": {"rank": 2, "drop": 0},  # ALBERT has one block
    "AdapterFFN": {"rank": 2},
    "BitFit": {"add_biases": True},  # some families have none
    "LastBlocks": {"blocks": 1},
    "LoRA": {"rank": 2},
    "LoReFT": {"rank": 2},
    "PrefixTuning": {"length": 3},
    "PromptTuning": {"length": 3},
    "QLoRA": {"rank": 2},
    "VeRA": {"rank": 8},
}
DECODERS = [family for family in FAMILIES if family not in (*MASKED, "t5")]
TASKS = {
    "Classification": [*CLASSIFIERS, *ENCODERS],
    "TextToTextClassification": ["t5", *ENCODER_DECODERS],
    "DataToText": [*DECODERS, "t5", *ENCODER_DECODERS],
    "InstructionTuning": DECODERS,
}
QUICK = {
    ("Classification", "roberta"),
    ("TextToTextClassification", "t5"),
    ("DataToText", "gpt2"),
    ("InstructionTuning", "llama"),
}
"""The cells of the fast tier."""
CELLS = [
    pytest.param(method, task, family, marks=[] if (task, family) in QUICK else pytest.mark.slow)
    for task, families in TASKS.items()
    for family in families
    for method in METHODS
]


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny backbone."""
    root, made = tmp_path_factory.mktemp("backbones"), dict[str, Path]()

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save_backbone(family, root / family, dropout=0.0)
        return made[family]

    return folder


def method_of(name: str, folder: Path) -> Method:
    options = OPTIONS.get(name, {})
    if name == "SteeringVector":
        pairs = [("It is very good.", "It is very bad."), ("Thai food, cheap.", "French food, dear.")]
        lines = [json.dumps({"positive": better, "negative": worse}) for better, worse in pairs]
        (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
        options = {"pairs": str(folder / "pairs.jsonl"), "layer": -1}
    return METHODS[name](**options)


def task_of(name: str, backbone: Path, method: Method) -> BackboneTask:
    """A task that has read no data yet."""
    make = {
        "Classification": make_classifier,
        "TextToTextClassification": make_writer,
        "DataToText": make_task,
        "InstructionTuning": tuning,
    }[name]
    quantization = "nf4" if method.weights == "quantized" else None
    return make(backbone, method=method, backbone_options=BackboneOptions(quantization=quantization))  # type: ignore[operator]


def batch_of(task: Any, name: str, folder: Path) -> dict[str, Any]:
    """A training batch; the task learns its labels on the way."""
    if name.endswith("Classification"):
        data: Any = make_labeled_data(folder)
    else:
        data = make_data(folder) if name == "DataToText" else Conversations(max_length=60, overlong="cut")
    data.connect(task.tokenizer, task.encoder_decoder)
    data.setup("fit")
    if name.endswith("Classification"):
        task.take_labels(data.labels, data.metrics)
    return next(iter(data.train_dataloader()))


def loss_of(task: Any, name: str, batch: dict[str, Any]) -> Tensor:
    if name == "DataToText":
        return task.loss(batch)[0]
    return (task.token_losses(batch)[0] if name == "InstructionTuning" else task.loss(batch)).mean()


def tensors_of(task: BackboneTask) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, each under one name: weights may be tied."""
    yield from task.named_parameters()
    yield from task.backbone.named_buffers()


def output(backbone: Any, batch: dict[str, Any]) -> Tensor:
    """What the backbone says in evaluation: hidden states or logits."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if backbone.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = batch["input_ids"]
    with torch.no_grad():
        return backbone.eval()(**inputs)[0]


@pytest.mark.parametrize(("name", "task_name", "family"), CELLS)
def test_a_cell_runs_or_says_why_not(
    name: str, task_name: str, family: str, backbones: Callable[[str], Path], tmp_path: Path
) -> None:
    if METHODS[name].weights == "quantized" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    method, folder = method_of(name, tmp_path), backbones(family)
    record = record_of(build(family).config)
    assert record is not None
    if reason := type(method).limit(record, getattr(tasks, task_name).has_head()):
        with pytest.raises(UsageError, match=f"^model.method {name} ") as caught:
            task_of(task_name, folder, method)
        assert reason in str(caught.value)
        return
    task = task_of(task_name, folder, method)
    batch = batch_of(task, task_name, tmp_path)
    task.configure_model()
    trained = task.trainable_parameters()
    in_backbone = {key.removeprefix("backbone.") for key in trained if key.startswith("backbone.")}
    assert in_backbone or name == "HeadOnly"
    before = {key: value.clone() for key, value in tensors_of(task)}

    method.compute(task.backbone, task.tokenizer)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    for _ in range(0 if method.computed else 2):
        optimizer.zero_grad()
        loss_of(task, task_name, batch).backward()
        optimizer.step()
    changed = {key for key, value in tensors_of(task) if not torch.equal(value, before[key])}
    assert changed and changed <= set(trained)
    assert in_backbone == set() or any(key.startswith("backbone.") for key in changed)

    tensors = {key.removeprefix("backbone."): value for key, value in trained.items()}
    save_edits(tmp_path / "edits", tensors, task.record())
    fresh = task_of(task_name, folder, method).load_backbone()
    if name != "HeadOnly":
        assert not torch.equal(output(fresh, batch), output(task.backbone, batch))
    applied = apply_edits(fresh, tmp_path / "edits")
    assert set(applied) == in_backbone
    assert torch.equal(output(fresh, batch), output(task.backbone, batch))


@pytest.mark.parametrize("task_name", ["DataToText", "InstructionTuning"])
def test_an_encoder_cannot_write_whatever_the_method(
    task_name: str, backbones: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in set(METHODS) - {"HeadOnly", "QLoRA"}:
        method = method_of(name, tmp_path)
        with pytest.raises(UsageError, match=r"is an encoder .* and cannot write text"):
            task_of(task_name, backbones("bert"), method).configure_model()
