"""Many runs at once and one after another: both take the same steps."""

from statistics import median

import torch
from torch.nn.functional import cross_entropy

from red_lightning.backbones.surgery import shared_copy
from red_lightning.benchmark import many_trainings
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build
from red_lightning.methods import RED

TINY = Settings(rounds=1, size="tiny")


def test_measured_both_ways() -> None:
    case = many_trainings.measure(TINY)
    assert len(case.checks) == 2
    assert all(case.checks.values()), case.checks
    assert [row.variant for row in case.rows] == ["one run after another", "8 at once", "4 at once", "2 at once"] * 2
    assert not [row for row in case.rows if row.goal]  # which are for other sizes
    assert all(row.gain and median(row.amounts) > 0 for row in case.rows)


def test_both_ways_take_the_same_steps() -> None:
    backbone = build("roberta", TINY)
    alone = [many_trainings.Run(seed, shared_copy(backbone), 2, TINY) for seed in range(many_trainings.RUNS)]
    many_trainings._one_after_another(alone, 3)
    for some in (8, 2):
        groups = many_trainings._joined(backbone, some, 2, TINY)
        many_trainings._at_once(groups, 1)
        many_trainings._at_once(groups, 2)  # threads can be started again
        assert all(group.merged.computed == 3 for group, _ in groups)
        joined = [run for _, runs in groups for run in runs]
        for one, other in zip(alone, joined, strict=True):
            for expected, found in zip(one.learned, other.learned, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)  # Adam divides what is almost 0


def test_the_baseline_is_a_bare_step() -> None:
    """Plain torch, written anew, takes the step of a run that is alone."""
    backbone = build("roberta", TINY)
    run, twin = (many_trainings.Run(5, shared_copy(backbone), 2, TINY) for _ in range(2))
    before = [parameter.detach().clone() for parameter in run.learned]
    many_trainings._one_after_another([run], 1)
    hidden = twin.backbone(twin.inputs["input_ids"])[0]
    inner, outer = (layer for layer in twin.head.children() if isinstance(layer, torch.nn.Linear))
    logits = outer(torch.tanh(inner(hidden[:, 0])))
    gradients = torch.autograd.grad(cross_entropy(logits, twin.labels), twin.learned)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for parameter, old, gradient in zip(run.learned, before, gradients, strict=True):
        step = torch.nn.Parameter(old)
        step.grad = gradient * min(1.0, 1.0 / (norm.item() + 1e-6))
        torch.optim.AdamW([step], lr=1e-4).step()
        torch.testing.assert_close(parameter, step, rtol=1e-5, atol=2e-6)


def test_runs_differ() -> None:
    first, second = (many_trainings.Run(seed, build("roberta", TINY), 2, TINY) for seed in (0, 1))
    assert not torch.equal(first.learned[0], second.learned[0])
    assert not torch.equal(first.inputs["input_ids"], second.inputs["input_ids"])
    assert len(first.learned) == len(RED().apply(build("roberta", TINY))) + 4
