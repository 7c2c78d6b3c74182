"""What is drawn follows the softmax, and depends on nothing but the seed and the prompt."""

from collections import Counter

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from red_lightning.errors import UsageError
from red_lightning.generation import Decoding
from red_lightning.generation.logits_processors import Sampling

ROWS = 4000


def drawn(logits: torch.Tensor, temperature: float, top_p: float, seed: int = 0) -> torch.Tensor:
    """The first token of as many different prompts as rows: shape (rows,)."""
    prompts = [[number] for number in range(ROWS)]
    sampling = Sampling(temperature, top_p, seed, prompts)
    return sampling(torch.zeros(ROWS, 1, dtype=torch.int64), logits.expand(ROWS, -1)).argmax(dim=1)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_draws_follow_the_softmax(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -torch.inf]])
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, logits))
    expected = torch.softmax(warped[0], dim=0) * ROWS
    counts = Counter(drawn(logits, temperature, top_p).tolist())
    observed = torch.tensor([counts[token] for token in range(6)], dtype=torch.float32)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 20.5  # 0.001 of five degrees of freedom


def test_a_draw_depends_on_the_seed_and_the_prompt_alone() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(3, 1, dtype=torch.int64)
    prompts = [[5, 6], [7], [5, 6]]
    together = Sampling(1.0, 1.0, 3, prompts)(ids, logits)
    alone = torch.cat([Sampling(1.0, 1.0, 3, [p])(ids[:1], logits[n : n + 1]) for n, p in enumerate(prompts)])
    assert torch.equal(together, alone)
    assert torch.allclose(together[0] - logits[0], together[2] - logits[2], atol=1e-5)  # one prompt, one noise
    assert not torch.equal(Sampling(1.0, 1.0, 4, prompts)(ids, logits), together)


def test_each_token_is_drawn_anew() -> None:
    sampling = Sampling(1.0, 1.0, 0, [[1]])
    logits, ids = torch.zeros(1, 50), torch.zeros(1, 1, dtype=torch.int64)
    assert not torch.equal(sampling(ids, logits), sampling(ids, logits))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.7, "num_beams": 10}, "num_beams is 10; give num_beams 1"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Decoding(**options)  # type: ignore[arg-type]
