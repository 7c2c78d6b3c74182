"""Each case on tiny models. Its checks hold, and exact counts agree with another way to count."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from red_lightning.benchmark import CASES
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.e2e_decoding import LENGTH, NoEnd
from red_lightning.benchmark.e2e_loss import AUTHORS, ONCE, WAYS, Plain, edited_task, read_e2e
from red_lightning.benchmark.measure import Row, measure
from red_lightning.benchmark.random_models import SHAPES, build, config_of, random_red, token_ids, tokenizer_of
from red_lightning.benchmark.training_steps import Steps, agree, evenly
from red_lightning.editing.surgery import shared_copy

TINY = Settings(rounds=1, size="tiny")


def measured(name: str, settings: Settings = TINY, checks: int = 0) -> list[Row]:
    """Run a case, and return the rows of its tables."""
    tables = list(tables_of(name, settings))
    held = [holds for table in tables for holds in table.checks.values()]
    assert held == [True] * checks
    rows = [row for table in tables for row in measure(table, settings)]
    assert rows and all(min(row.amounts) > 0 for row in rows)
    return rows


def tables_of(name: str, settings: Settings) -> Iterator[Any]:
    tables: Iterator[Any] = getattr(import_module(f"red_lightning.benchmark.{CASES[name][0]}"), name)(settings)
    return tables


def amounts(rows: list[Row], unit: str, table: str = "") -> dict[str, float]:
    return {row.variant: row.amounts[0] for row in rows if row.unit.startswith(unit) and row.table.startswith(table)}


def test_every_case_exists() -> None:
    for name in CASES:
        assert iter(tables_of(name, TINY))


def test_step_time() -> None:
    rows = measured("step_time", checks=3)
    assert [row.variant for row in rows if row.table.startswith("Llama")] == [
        "one vector",
        "the authors' layer",
        "RED",
        "RED, selective_recomputation",
        "LoRA, rank 8",
        "IA3",
        "full fine-tuning",
    ]


def test_saved_activations() -> None:
    rows = measured("saved_activations", checks=3)
    for table in {row.table for row in rows}:
        kept = amounts(rows, "bytes kept", table)
        assert kept["RED, selective_recomputation"] < kept["RED"] == kept["the authors' layer"]
        assert kept["RED"] < min(kept[name] for name in ("LoRA, rank 8", "full fine-tuning"))


def test_many_edits() -> None:
    assert "3 different adapters" in amounts(measured("many_edits", checks=1), "s/token")


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
def test_checkpoint_bytes() -> None:
    shape, sizes = SHAPES["tiny"]["gpt2"], amounts(measured("checkpoint_bytes"), "bytes")
    vectors = 2 * shape.layers * shape.width
    words = len(tokenizer_of("quickstart")) - shape.vocabulary  # the embedding grows for them
    weights = 4 * (sum(parameter.numel() for parameter in build("gpt2", TINY).parameters()) + words * shape.width)
    assert sizes["weights of the whole model"] == weights
    assert 3 * 4 * vectors < sizes["RED: last.ckpt"] <= 1.05 * 3 * 4 * vectors + 8704
    assert 4 * vectors < sizes["RED: edits/"] < 4 * vectors + 2048
    assert sizes["RED: edits/"] < sizes["LoRA, rank 8: edits/"] < sizes["LoRA, rank 8: last.ckpt"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_glue_training(tiny: Settings) -> None:
    rows = measured("glue_training", tiny, checks=1)
    for task in ("mrpc", "cola", "rte", "stsb"):
        random, fixed, grouped, least = amounts(rows, "tokens", f"{task}: ").values()
        assert least < grouped < 1.06 * least
        assert grouped < random <= fixed
        assert fixed % 128 == 0


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_instruction_tuning(tiny: Settings) -> None:
    padded, fixed, packed = amounts(measured("instruction_tuning", tiny, checks=1), "tokens").values()
    assert packed < padded < fixed
    assert fixed % 768 == 0


@pytest.mark.slow
def test_e2e_training(tiny: Settings) -> None:
    rows = measured("e2e_training", tiny, checks=1)
    tokens = amounts(rows, "tokens")
    longest, grouped, packed, shared = (tokens[name] for name in WAYS)
    assert tokens[AUTHORS] == 164 > longest > max(grouped, packed) > shared
    assert 164 / packed > 2.4
    assert 164 / shared > 4.5
    peaks = amounts(rows, "bytes")
    assert peaks["share_sources"] < peaks[AUTHORS] / 3


@pytest.mark.slow
def test_e2e_evaluation(tiny: Settings) -> None:
    tokens = amounts(measured("e2e_evaluation", tiny, checks=1), "tokens")
    assert tokens[AUTHORS] == 164 * 4672
    assert tokens[AUTHORS] / tokens[ONCE] > 4.5


def test_the_authors_way_pads_rows_and_has_the_loss_of_each_target(tiny: Settings) -> None:
    data = read_e2e(tiny, train_size=20)
    task, shape = edited_task(tiny)
    plain = Plain(task, data, tiny)
    rows: list[dict[str, Any]] = data._encoded["train"][:3]
    batch = plain.batch(rows)
    assert batch["input_ids"].shape == (3, 164)
    losses = []
    for row in rows:
        tokens = torch.tensor([[token % plain.model.config.vocab_size for token in (*row["source"], *row["target"])]])
        logits = plain.model(input_ids=tokens).logits[0, len(row["source"]) - 1 : -1]
        losses.append(cross_entropy(logits, tokens[0, len(row["source"]) :], reduction="none"))
    assert plain.loss(batch).item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
    assert sum(vector.numel() for vector in plain.learned) == 2 * shape.layers * shape.width


def test_e2e_decoding(tiny: Settings) -> None:
    alone, together = (row for row in measured("e2e_decoding", tiny, checks=1) if not row.wall)
    assert alone.table.startswith("4,693 rows, 630 sources")
    assert alone.amounts[0] > 10 * 4693 * LENGTH
    assert 14 < 1 / together.ratios[0] < 17  # 7.45 times fewer texts, and about half the tokens of each


def test_no_text_ends() -> None:
    scores = torch.zeros(2, 5)
    assert NoEnd(3)(torch.zeros(2, 1), scores).isneginf().nonzero().tolist() == [[0, 3], [1, 3]]
    assert not scores.any()


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_models_have_their_shape(family: str) -> None:
    shape = SHAPES["tiny"][family]
    model = build(family, TINY)
    assert model.training
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (shape.width, shape.layers)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), build(family, TINY).parameters(), strict=True))
    ids = token_ids(shape, TINY)
    assert ids.shape == (shape.rows, shape.tokens)
    assert int(ids.max()) < shape.vocabulary
    first = model(input_ids=ids)[0]
    assert torch.equal(first, model(input_ids=ids)[0])  # there is no dropout
    edited = shared_copy(model)
    random_red(edited)
    assert not torch.allclose(edited(input_ids=ids)[0], first)


@pytest.mark.parametrize(
    ("size", "model", "numbers"),
    [("small", "gpt2", 124_439_808), ("paper", "gpt2", 354_823_168), ("paper", "llama", 6_738_415_616)],
)
def test_shapes_are_the_published_ones(size: str, model: str, numbers: int) -> None:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config_of(SHAPES[size][model]))
    built.tie_weights()  # transformers 5.0 leaves that out on the meta device
    assert built.num_parameters() == numbers


def test_steps_train_their_parameters() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    Steps([weight], lambda batch: weight * batch, [1.0, 2.0, 3.0])()
    assert weight.item() == pytest.approx(1 - 3e-4, abs=1e-5)  # a step of Adam is as long as its learning rate
    assert weight.grad is None


def test_different_losses_or_gradients_do_not_agree() -> None:
    def square(start: float, extra: float = 0.0) -> Steps:
        weight = torch.nn.Parameter(torch.tensor([start, 1.0]))
        return Steps([weight], lambda batch: (weight**2).sum() * batch + extra, [1.0])

    assert agree(square(1.0), square(1.0), 0, 0)
    assert agree(square(1.0), square(1.0, 1e-3), 1e-3, 0) and not agree(square(1.0), square(1.0, 1e-3), 1e-5, 0)
    assert agree(square(1.0), square(-1.0), 0, 2) and not agree(square(1.0), square(-1.0), 0, 1)


def test_evenly() -> None:
    assert evenly(list(range(10)), 2) == [2, 7]
    assert evenly(list(range(10)), 10) == list(range(10))
    assert evenly([1, 2], 5) == [1, 2]
