"""The decoding case: both ways write the same, and texts end where they should."""

from pathlib import Path

import pytest
import torch

from red_lightning.benchmark.e2e_decoding import OURS, PLAIN, EndsAsReferences, measure
from red_lightning.benchmark.settings import Settings


def test_both_ways_write_the_same_tokens(shared: Path) -> None:
    hub = shared / "hub"
    settings = Settings(
        rounds=1,
        size="tiny",
        e2e_path=str(hub / "tuetschek/e2e_nlg"),
        gpt2_tokenizer=str(hub / "openai-community/gpt2-medium"),
    )
    case = measure(settings)
    assert case.checks == {"both write the same tokens": True}
    timed, slots = case.rows[:2], case.rows[2:]
    assert [row.variant for row in timed] == [row.variant for row in slots] == [PLAIN, OURS]
    assert timed[0].group.startswith("4,693 rows, 630 sources, 10 beams")
    assert 14 < slots[1].ratio < 17  # 7.45 times fewer texts, and half as many tokens for each


@pytest.mark.parametrize("padding", [[], [-1, -1]])
def test_texts_end_as_the_first_references(padding: list[int]) -> None:
    eos = 9
    sources = [{"source": [1, 2, eos], "length": 2}, {"source": [2, 1, eos], "length": 3}]
    ends = EndsAsReferences(sources, eos, "cpu")
    scores = torch.zeros(2, 10)
    ids = torch.tensor([[*padding, 1, 2, eos], [*padding, 2, 1, eos]])
    free = ends(ids, scores)
    assert free[:, eos].isneginf().all() and (free[:, :eos] == 0).all()
    then = ends(torch.cat([ids, torch.tensor([[4], [4]])], dim=1), scores)
    assert then[0, eos] == 0 and then[0, :eos].isneginf().all()
    assert then[1, eos].isneginf() and (then[1, :eos] == 0).all()
