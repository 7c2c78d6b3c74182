"""Training: many runs at once, in passes of a frozen backbone that they share, against one run after another.

Each run has vectors, a head, a batch, a loss and an optimizer of its own. The baseline is a bare loop of each run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from red_lightning.backbones.head import ClassificationHead
from red_lightning.backbones.surgery import shared_copy
from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of
from red_lightning.methods import RED
from red_lightning.strategies.together import Group

RUNS, TOKENS = 8, 32
ROWS = {"cpu": (2, 8), "cuda": (32, 128)}
"""Device -> rows of a run's batch: those that the goal is about, and four times as many."""
PLAIN = "one run after another"
AT_ONCE = (RUNS, 4, 2)
"""How many runs share a pass; the goal is about all."""
GOAL = Goal(cpu=1.2, cuda=4.0)
SAME = 1e-6
"""How far apart equal gradients may be, as a share of their norm."""


class Run:
    """One of several trainings, on a random batch.

    Args:
        seed: Draws what it learns, and its batch.
        backbone: The backbone that it edits, with modules of its own.
        rows: Rows of its batch.
        settings: Size and device, and a seed for all.
    """

    def __init__(self, seed: int, backbone: Any, rows: int, settings: Settings) -> None:
        self.backbone, shape = backbone, shape_of("roberta", settings)
        with torch.random.fork_rng([]):  # all is drawn on the CPU
            torch.manual_seed(settings.seed + seed)
            vectors = RED().apply(backbone).values()
            self.head = ClassificationHead(shape.width, 2, dropout=0.0).to(settings.device)
            with torch.no_grad():
                for vector in vectors:
                    vector.add_(0.02 * torch.randn(vector.shape).to(vector.device))
            ids = torch.randint(5, shape.vocabulary - 1, (rows, TOKENS)).to(settings.device)
            self.labels = torch.randint(2, (rows,)).to(settings.device)
        self.inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.learned = [*vectors, *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.learned, lr=1e-4)

    def backward(self) -> None:
        """Compute the loss, and go back from it."""
        hidden = self.backbone(**self.inputs).last_hidden_state
        cross_entropy(self.head(hidden[:, 0]), self.labels).backward()

    def update(self) -> None:
        """Take the optimizer's step."""
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


Shared = tuple[Group, list[Run]]
"""Runs that share passes."""


def measure(settings: Settings) -> Case:
    """Compare ways to train 8 runs, on a model shaped like RoBERTa.

    Args:
        settings: How to measure. Each run's batch has 2 rows on a CPU, 32 on a GPU, and then four times as many.
    """
    backbone, shape = build("roberta", settings), shape_of("roberta", settings)
    rows: list[Row] = []
    checks: dict[str, bool] = {}
    for each in ROWS[settings.device]:
        title = f"{each}x{TOKENS} tokens of each run; {shape.family}, {shape.layers} layers of {shape.width}"
        alone = [Run(seed, shared_copy(backbone), each, settings) for seed in range(RUNS)]
        ways = {some: _joined(backbone, some, each, settings) for some in AT_ONCE}
        if settings.dtype == "float32":
            checks[f"{title}: at once each has the gradients that it has alone"] = _same(alone, ways[RUNS][0])
        steps = 10 if settings.device == "cuda" else 1  # a step on a GPU takes no longer than to start some threads
        variants = [
            Variant(PLAIN, partial(_one_after_another, alone, steps), steps),
            *(Variant(f"{some} at once", partial(_at_once, ways[some], steps), steps) for some in AT_ONCE),
        ]
        goals = {f"{RUNS} at once": GOAL} if each == ROWS[settings.device][0] else {}
        rows += compare(title, variants, settings, f"step of all {RUNS}", gain=True, goals=goals)
    return Case("Many runs: forward pass, backward pass and AdamW of each", rows, checks)


def _joined(backbone: Any, some: int, rows: int, settings: Settings) -> list[Shared]:
    """The runs, so many of them in each group."""
    found: list[Shared] = []
    for first in range(0, RUNS, some):
        group = Group(some)
        twins = [group.merged.join(member, lambda: backbone, group.call) for member in range(some)]
        found.append((group, [Run(first + member, twin, rows, settings) for member, twin in enumerate(twins)]))
    return found


def _one_after_another(runs: Sequence[Run], steps: int) -> None:
    for run in runs:
        for _ in range(steps):
            run.backward()
            run.update()


def _at_once(groups: Sequence[Shared], steps: int) -> None:
    """Train one group after another; the runs of each have a thread, as they have in ``fit``."""

    def train(group: Group, member: int, run: Run) -> None:
        for _ in range(steps):
            run.backward()
            group.backward(member)
            run.update()

    for group, runs in groups:
        _together(group, [partial(train, group, member, run) for member, run in enumerate(runs)])


def _together(group: Group, work: Sequence[Callable[[], None]]) -> None:
    """Do each run's piece of work."""
    group.turns.start(work)
    group.turns.wait()
    for error in filter(None, group.turns.ended.values()):
        raise error


def _same(alone: Sequence[Run], shared: Shared) -> bool:
    """Whether the gradients of each run are those that it has alone; afterwards there are none."""

    def backward(member: int, run: Run) -> None:
        run.backward()
        group.backward(member)

    group, joined = shared
    _together(group, [partial(backward, member, run) for member, run in enumerate(joined)])
    for run in alone:
        run.backward()
    pairs = [(_gradients(one), _gradients(other)) for one, other in zip(alone, joined, strict=True)]
    return all(bool((one - other).norm() <= SAME * one.norm()) for one, other in pairs)


def _gradients(run: Run) -> Tensor:
    """All numbers of a run's gradients, which it has no more."""
    gradients = [parameter.grad.flatten() for parameter in run.learned if parameter.grad is not None]
    run.optimizer.zero_grad()
    return torch.cat(gradients)
