"""Each case on tiny models: what it measures holds, and exact counts are those of another way to count."""

import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from red_lightning.benchmark import CASES, packed_conversations
from red_lightning.benchmark.measure import Case
from red_lightning.benchmark.optimizer_steps import Steps, evenly
from red_lightning.benchmark.random_tasks import tokenizer_of
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import SHAPES, build, token_ids
from red_lightning.editing.surgery import shared_copy

TINY = Settings(rounds=1, size="tiny")


def measured(name: str, settings: Settings = TINY) -> Case:
    case: Case = import_module(f"red_lightning.benchmark.{name}").measure(settings)
    assert case.rows
    assert all(case.checks.values()), case.checks
    assert all(row.amounts and min(row.amounts) > 0 for row in case.rows)
    for group in {(row.group, row.unit) for row in case.rows}:
        first = next(row for row in case.rows if (row.group, row.unit) == group)
        assert set(first.ratios) == {1.0}
    return case


def amounts(case: Case, group: str) -> dict[str, float]:
    return {row.variant: row.amounts[0] for row in case.rows if row.group.startswith(group)}


def with_data(shared: Path) -> Settings:
    hub = shared / "hub"
    return Settings(
        rounds=1,
        size="tiny",
        glue_path=str(hub / "nyu-mll/glue"),
        ultrafeedback_path=str(hub / "HuggingFaceH4/ultrafeedback_binarized"),
        roberta_tokenizer=str(hub / "FacebookAI/roberta-base"),
        llama_tokenizer=str(hub / "meta-llama/Llama-2-7b-hf"),
    )


def test_every_case_can_be_imported() -> None:
    for name in CASES:
        assert callable(import_module(f"red_lightning.benchmark.{name}").measure)


def test_step_time() -> None:
    case = measured("step_time")
    assert len(case.checks) == 3
    variants = [row.variant for row in case.rows if row.group.startswith("Llama")]
    assert variants == [
        "frozen floor (one vector)",
        "the authors' layer",
        "RED",
        "LoRA, rank 8",
        "(IA)3",
        "peft's LoRA, rank 8",
        "peft's (IA)3",
        "all weights",
    ]
    assert not [row for row in case.rows if row.goal]  # which are for other sizes


def test_many_edits() -> None:
    case = measured("many_edits")
    assert list(case.checks) == ["each row of a mixed batch has the logits of a batch with its edit alone"]
    assert "3 different edits" in [row.variant for row in case.rows]


def test_framework_tax() -> None:
    bare, ours, _, twenty, taxed = measured("framework_tax").rows
    assert taxed.ratios[0] == pytest.approx((0.020 + ours.amounts[0] - bare.amounts[0]) / 0.020)
    assert twenty.ratios == [1.0]


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")  # peft 0.18
def test_checkpoint_bytes() -> None:
    shape, case = SHAPES["tiny"]["gpt2"], measured("checkpoint_bytes")
    vectors = 2 * shape.layers * shape.width
    words = len(tokenizer_of("quickstart")) - shape.vocabulary  # for which the embedding grows
    weights = 4 * (sum(parameter.numel() for parameter in build("gpt2", TINY).parameters()) + words * shape.width)
    share, resume = amounts(case, "to share"), amounts(case, "to resume from; ")
    assert amounts(case, "to resume from, ")["the vectors and Adam's two moments"] == 3 * 4 * vectors
    assert share["the whole model"] == weights
    assert resume["Lightning's default checkpoint"] > weights
    assert 3 * 4 * vectors < resume["RED: last.ckpt"] <= 1.05 * 3 * 4 * vectors + 8192
    assert 4 * vectors < share["RED: edits/"] < 4 * vectors + 2048
    assert share["RED: edits/"] < share["LoRA, rank 8: edits/"] < share["peft's LoRA, rank 8: save_pretrained"]


@pytest.mark.slow
def test_glue_training(shared: Path) -> None:
    case = measured("glue_training", with_data(shared))
    for task in ("mrpc", "cola", "rte", "stsb"):
        least = amounts(case, f"{task}: ")["without padding"]
        slots = {row.variant: row.amounts[0] for row in case.rows if row.group.startswith(task) and not row.wall}
        assert least < slots["grouped by length"] < 1.06 * least
        assert slots["grouped by length"] < slots["batches at random (the authors' way)"]
        assert slots["every row padded to 128"] % 128 == 0


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_packed_conversations(shared: Path) -> None:
    case = measured("packed_conversations", with_data(shared))
    slots = [row.amounts[0] for row in case.rows if not row.wall]
    plain, fixed, packed = slots
    assert packed < plain < fixed
    assert fixed % 768 == 0


def test_timed_conversations_are_like_the_epoch() -> None:
    lengths = random.Random(0).choices(range(40, 768), k=301)
    pairs = packed_conversations._pairs(range(301))
    few = packed_conversations._typical(pairs, lengths, 2)
    assert few in [pairs[first : first + 2] for first in range(149)]  # the last row has nothing beside it

    def shape(some: list[list[int]]) -> tuple[float, float]:
        own = [[lengths[row] for row in pair] for pair in some]
        total, rows = sum(map(sum, own)), sum(map(len, own))
        return total / rows, sum(len(pair) * max(pair) for pair in own) / total

    assert shape(few) == pytest.approx(shape(pairs), rel=0.05)
    assert packed_conversations._typical(pairs[:1], lengths, 2) == pairs[:1]


@pytest.mark.slow
def test_load_time() -> None:
    assert [row.variant for row in measured("load_time").rows] == [
        "from_pretrained",
        "red_lightning.load",
        "python -c 'pass'",
        "python -m red_lightning --help",
        "python -c 'import lightning.pytorch.cli, transformers'",
        "python -m red_lightning fit --help",
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_models_are_those_that_their_shape_says(family: str) -> None:
    shape = SHAPES["tiny"][family]
    model = build(family, TINY)
    assert model.training
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (shape.width, shape.layers)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), build(family, TINY).parameters(), strict=True))
    copied: Any = shared_copy(model)
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    assert not {id(module) for module in model.modules()} & {id(module) for module in copied.modules()}
    ids = token_ids(shape, TINY)
    assert ids.shape == (shape.rows, shape.tokens)
    assert int(ids.max()) < shape.vocabulary
    first = model(input_ids=ids)[0]
    assert torch.equal(first, model(input_ids=ids)[0])  # there is no dropout


@pytest.mark.parametrize(
    ("size", "model", "numbers"),
    [("small", "gpt2", 124_439_808), ("paper", "gpt2", 354_823_168), ("paper", "llama", 6_738_415_616)],
)
def test_the_shapes_are_the_published_ones(size: str, model: str, numbers: int) -> None:
    from transformers import AutoModelForCausalLM

    from red_lightning.benchmark.shapes import config_of

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config_of(SHAPES[size][model]))
    built.tie_weights()  # transformers 5.0 leaves that out on the meta device
    assert built.num_parameters() == numbers


def test_steps_train_what_they_are_told() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    steps = Steps([weight], lambda batch: weight * batch, [1.0, 2.0, 3.0])
    steps()
    assert weight.item() == pytest.approx(1 - 3e-4, abs=1e-5)  # Adam's steps are as long as its rate
    assert weight.grad is None


def test_evenly() -> None:
    assert evenly(list(range(10)), 2) == [2, 7]
    assert evenly(list(range(10)), 10) == list(range(10))
    assert evenly([1, 2], 5) == [1, 2]
