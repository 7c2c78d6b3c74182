"""The case of large models on tiny ones."""

from importlib.util import find_spec

import pytest
import torch

from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.quantization import Quantization, in_fewer_bits
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.benchmark.large_models import AUTHORS, WAYS, large_models, model_for, plain_way, red_way
from red_lightning.benchmark.measure import measure
from red_lightning.benchmark.random_models import SHAPES, build, token_ids
from red_lightning.benchmark.training_steps import agree
from red_lightning.efficiency import compiling

TINY = Settings(rounds=2, size="tiny")
SHAPE = SHAPES["tiny"]["llama"]
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
KINDS = [
    pytest.param("nf4", marks=needs_bitsandbytes),
    pytest.param("int8_weight_only", marks=needs_torchao),
    pytest.param("float8_weight_only", marks=needs_torchao),
]


def test_each_way_that_this_machine_supports_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    (table,) = large_models(TINY)
    lacking = {"RED, kernels liger"}
    lacking |= {name for name in WAYS if "nf4" in name and find_spec("bitsandbytes") is None}
    lacking |= {name for name in WAYS if "_weight_only" in name and find_spec("torchao") is None}
    ways = [name for name in WAYS if name not in lacking]
    assert [*table.checks.values()] == [True] * len(ways)
    assert {note.split("'")[1] for note in table.notes} == lacking
    rows = measure(table, TINY)
    assert [row.variant for row in rows] == 2 * [AUTHORS, *ways]
    times, peaks = rows[: len(ways) + 1], rows[len(ways) + 1 :]
    assert {row.unit for row in times} == {"s/token"} and {row.unit for row in peaks} == {"bytes at the peak"}
    weights = SHAPE.layers * (4 * SHAPE.width**2 + 3 * SHAPE.width * SHAPE.inner)
    embeddings = 2 * SHAPE.vocabulary * SHAPE.width
    for row in peaks:
        assert row.amounts[0] > weights / 2 + 4 * embeddings
    assert peaks[0].amounts[0] > 4 * (weights + embeddings)


def test_a_way_that_computes_something_else_is_seen() -> None:
    options = WAYS["RED, selective_recomputation"]
    ours, plain = red_way(build("llama", TINY), options, TINY), plain_way(build("llama", TINY), TINY)
    assert agree(ours.steps, plain.steps, 1e-5, 1e-5)
    with torch.no_grad():
        plain.steps.parameters[0][0, 0] += 0.1
    assert not agree(ours.steps, plain.steps, 1e-5, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_layers_of_blocks_are_quantized(kind: Quantization) -> None:
    model, whole = model_for(BackboneOptions(quantization=kind), TINY), build("llama", TINY)
    assert model.training
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in whole.named_parameters()]
    quantized = {name for name, weight in model.named_parameters() if in_fewer_bits(weight)}
    assert quantized == {name for name, _ in whole.named_parameters() if "_proj." in name}
    ids = token_ids(SHAPE, TINY)
    first, second = (each(input_ids=ids).logits for each in (model, whole))
    assert not torch.equal(first, second)
    assert (first - second).norm() < 0.3 * second.norm()
