"""Random numbers as functions of the seed, the batch and the process."""

import pytest
import torch

from red_lightning.tasks.seeding import SEED, seed_batch

CPU = torch.device("cpu")


def drawn(*where: int) -> torch.Tensor:
    seed_batch(*where, CPU)
    return torch.rand(4)


def test_a_batch_draws_the_same_numbers_whatever_was_drawn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED, "7")
    first = drawn(1, 2, 0)
    torch.rand(100)
    assert torch.equal(drawn(1, 2, 0), first)
    others = [drawn(2, 2, 0), drawn(1, 3, 0), drawn(1, 2, 1)]
    monkeypatch.setenv(SEED, "8")
    assert all(not torch.equal(other, first) for other in [*others, drawn(1, 2, 0)])


def test_the_numbers_are_those_of_torchs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED, "7")
    seeds: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch, "manual_seed", seeds.append)
        seed_batch(1, 2, 3, torch.device("meta"))  # a kind of device that torch seeds by itself
    torch.manual_seed(seeds[0])
    assert torch.equal(torch.rand(4), drawn(1, 2, 3))
