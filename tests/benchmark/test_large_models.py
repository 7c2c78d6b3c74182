"""The case of large models, on tiny ones: what is measured, what it must compute, and how quantized models are made."""

from importlib.util import find_spec
from statistics import median
from typing import Any
from weakref import ref

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning.backbones.quantization import Quantization, in_fewer_bits
from red_lightning.benchmark import large_models
from red_lightning.benchmark.large_models import (
    CHECKPOINTED,
    COMPILED,
    FLOAT8,
    INT8,
    KERNELS,
    NF4,
    OURS,
    PLAIN,
    WAYS,
    largest,
)
from red_lightning.benchmark.llama_steps import batch_of, plain_way, red_way, same_gradients
from red_lightning.benchmark.memory import peak_bytes
from red_lightning.benchmark.quantized_models import quantized, written_out
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import SHAPES, build, config_of
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


def grouped(config: Any = None) -> Any:
    """A tiny Llama's configuration with half as many heads of keys and values, as the largest has fewer."""
    config = config or config_of(SHAPE)
    config.num_key_value_heads = SHAPE.heads // 2
    return config


def test_a_tiny_model_is_measured_every_way_that_this_machine_can_go(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    case = large_models.measure(TINY)
    lacking = {KERNELS}
    lacking |= {NF4} if find_spec("bitsandbytes") is None else set()
    lacking |= {INT8, FLOAT8} if find_spec("torchao") is None else set()
    ways = [name for name in WAYS if name not in lacking]
    assert len(case.checks) == len(ways) and all(case.checks.values())
    assert {note.split("'")[1] for note in case.notes} == lacking
    times, shares, peaks = (
        {row.variant: row for row in case.rows if row.unit == unit}
        for unit in ("s/token", "GFLOP/s", "bytes at the peak")
    )
    assert list(times) == list(peaks) == list(shares)[1:] == [PLAIN, *ways]
    assert len({row.group for row in case.rows}) == 1
    assert not any(row.goal for row in case.rows)
    base = times[PLAIN].amounts
    for row in times.values():
        assert row.ratios == pytest.approx([other / own for own, other in zip(row.amounts, base, strict=True)])
    width, tokens = SHAPE.width, SHAPE.tokens
    weights = SHAPE.layers * (4 * width**2 + 3 * width * SHAPE.inner)
    head = SHAPE.vocabulary * width * (tokens - 1) / tokens
    attention = 3 * 4 * SHAPE.layers * width * (tokens + 1) / 2
    peak = next(iter(shares.values())).amounts[0]
    for name, row in times.items():
        expected = (4 * (weights + head) + attention) / median(row.amounts) / 1e9
        assert shares[name].amounts == pytest.approx([expected])
        assert shares[name].ratios == pytest.approx([expected / peak])
    for row in peaks.values():
        assert row.amounts[0] > weights / 2


@needs_bitsandbytes
def test_no_model_is_left_when_a_quantized_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[ref[Any]] = []
    there: list[int] = []

    def watched(*args: Any) -> Any:
        model = build(*args)
        heads.append(ref(model.lm_head.weight))
        return model

    def beside_none(*args: Any) -> Any:
        there.append(sum(head() is not None for head in heads))
        return quantized(*args)

    monkeypatch.setattr(large_models, "build", watched)
    monkeypatch.setattr(large_models, "quantized", beside_none)
    monkeypatch.setattr(large_models, "WAYS", {name: WAYS[name] for name in (OURS, CHECKPOINTED, NF4)})
    large_models.measure(TINY)
    checked, measured = there
    assert (checked, measured) == (1, 0)  # to check it, another one is needed; that is on small models


def test_goals_are_those_of_a_gpu_and_of_ways_that_are_there() -> None:
    for goals in (large_models.SPEED, large_models.SHARE, large_models.MEMORY):
        assert goals.keys() <= WAYS.keys()
        found = large_models._among(WAYS, goals)
        assert {name: (goal.cpu, goal.cuda) for name, goal in found.items()} == {
            name: (None, goal) for name, goal in goals.items()
        }
    assert large_models._among([OURS, COMPILED], large_models.SPEED).keys() == {COMPILED}


def test_a_way_that_computes_something_else_is_seen() -> None:
    batch = batch_of(SHAPE, TINY)
    ours, plain = red_way(build("llama", TINY), WAYS[OURS], batch), plain_way(build("llama", TINY), batch)
    assert same_gradients(ours, plain, 1e-5)
    with torch.no_grad():
        plain.steps.parameters[0][0, 0] += 0.1
    assert not same_gradients(ours, plain, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_is_made_block_by_block(kind: Quantization) -> None:
    config = config_of(SHAPE)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.head_dim = 24, 64, 160, 16
    config = grouped(config)
    made: list[Any] = []
    peak = peak_bytes(lambda: made.append(quantized(config, kind, TINY)), "cpu")
    (model,) = made
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    blocks = 4 * sum(weight.numel() for weight in whole.model.layers.parameters())
    assert peak < 0.6 * blocks
    assert model.training
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in whole.named_parameters()]
    assert {name for name, weight in model.named_parameters() if in_fewer_bits(weight)} == {
        name for name, _ in whole.named_parameters() if "_proj." in name
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_quantized_model_stores_can_be_written_out(kind: Quantization) -> None:
    model = quantized(grouped(), kind, TINY)
    plain = written_out(model, TINY)
    batch = batch_of(SHAPE, TINY)
    first, second = (each(input_ids=batch.ids).logits for each in (model, plain))
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)
    assert not torch.equal(first, build("llama", TINY)(input_ids=batch.ids).logits)
    assert not any(in_fewer_bits(weight) for weight in plain.parameters())


@needs_bitsandbytes
def test_one_step_in_4_bits() -> None:
    time, budget, peak = large_models.one_step(SHAPE, grouped(), TINY)
    assert (time.unit, len(time.amounts)) == ("s/token", 1)
    assert (budget.amounts, peak.variant) == ([80e9], NF4)
    embeddings = 2 * 4 * SHAPE.vocabulary * SHAPE.width
    assert embeddings < peak.amounts[0] < 5 * embeddings
    assert peak.ratios == [peak.amounts[0] / 80e9]
    assert peak.goal is None


def test_the_largest_model_is_the_published_one() -> None:
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(largest()).num_parameters() == 68_976_648_192


def test_a_gpu_that_is_too_small_leaves_the_largest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(large_models, "one_step", too_much)
    notes: list[str] = []
    assert large_models._largest(TINY, notes) == []
    assert notes == ["the step of Llama-2 70B is left out: the GPU has too little memory for it"]
