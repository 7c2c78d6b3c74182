"""The cases of E2E's loss, on tiny models: tokens are counted exactly, and the plain way is the authors'."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from red_lightning.benchmark import e2e_evaluation, e2e_training, label_loss
from red_lightning.benchmark.e2e_rows import Plain, edited_task, read_e2e
from red_lightning.benchmark.measure import Case
from red_lightning.benchmark.settings import Settings

LONGEST = 164


@pytest.fixture(scope="module")
def settings(shared: Path) -> Settings:
    hub = shared / "hub"
    return Settings(
        rounds=1,
        size="tiny",
        e2e_path=str(hub / "tuetschek/e2e_nlg"),
        gpt2_tokenizer=str(hub / "openai-community/gpt2-medium"),
    )


def amounts(case: Case, unit: str) -> dict[str, float]:
    return {row.variant: row.amounts[0] for row in case.rows if row.unit == unit}


def test_label_loss() -> None:
    case = label_loss.measure(Settings(rounds=1, size="tiny"))
    assert all(case.checks.values()) and len(case.checks) == 2
    assert {row.group.split(",")[0] for row in case.rows} == {"float32", "bfloat16"}


@pytest.mark.slow
def test_e2e_training(settings: Settings) -> None:
    case = e2e_training.measure(settings)
    assert list(case.checks.values()) == [True]
    slots = amounts(case, "tokens computed for a row")
    assert slots[e2e_training.PLAIN] == LONGEST
    longest, grouped, packed, shared = (slots[name] for name in e2e_training.WAYS)
    assert LONGEST > longest > max(grouped, packed) > shared
    assert LONGEST / packed > 2.4
    assert LONGEST / shared > 4.5


@pytest.mark.slow
def test_e2e_evaluation(settings: Settings) -> None:
    case = e2e_evaluation.measure(settings)
    assert list(case.checks.values()) == [True]
    slots = amounts(case, "tokens computed")
    assert slots[e2e_evaluation.PLAIN] == LONGEST * 4672
    assert slots[e2e_evaluation.PLAIN] / slots[e2e_evaluation.OURS] > 4.5


def test_the_plain_way_reads_rows_as_the_authors_code_lays_them_out(settings: Settings) -> None:
    data = read_e2e(settings, train_size=20)
    task, shape = edited_task(settings)
    plain = Plain(task, data, settings)
    rows: list[dict[str, Any]] = data._encoded["train"][:3]
    batch = plain.batch(rows)
    assert batch["input_ids"].shape == (3, LONGEST)
    losses = []
    for row in rows:
        tokens = torch.tensor([[token % plain.model.config.vocab_size for token in (*row["source"], *row["target"])]])
        logits = plain.model(input_ids=tokens).logits[0, len(row["source"]) - 1 : -1]
        losses.append(cross_entropy(logits, tokens[0, len(row["source"]) :], reduction="none"))
    for twice in (True, False):
        assert plain.loss(batch, twice).item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
    assert sum(vector.numel() for vector in plain.learned) == 2 * shape.layers * shape.width
