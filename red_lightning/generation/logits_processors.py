"""Logits processors of a batch, each row as if it were alone."""

import hashlib
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class RepetitionPenalty(LogitsProcessor):
    """transformers' penalty of what has occurred, padding (any negative token) apart.

    Args:
        penalty: What divides a logit.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = RepetitionPenaltyLogitsProcessor(penalty)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalise what has occurred: ``input_ids`` (rows x beams, tokens), ``scores`` (rows x beams, vocabulary)."""
        return self.penalty(torch.where(input_ids < 0, input_ids[:, -1:], input_ids), scores)


class NoRepeatedNgram(LogitsProcessor):
    """Bans each token that would end an n-gram which has occurred already, padding (any negative token) apart.

    Args:
        size: Tokens of an n-gram.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Ban tokens: ``input_ids`` (rows x beams, tokens), ``scores`` (rows x beams, vocabulary)."""
        if input_ids.shape[1] < self.size:
            return scores
        ngrams = input_ids.unfold(1, self.size, 1)
        begun = input_ids[:, None, input_ids.shape[1] + 1 - self.size :]
        ends = ngrams[..., -1]
        banned = (ngrams[..., :-1] == begun).all(dim=-1) & (ends >= 0)
        return scores.scatter_reduce(
            1, ends.clamp(min=0), torch.where(banned, -torch.inf, torch.inf).to(scores), "amin"
        )


class WithoutPadding(LogitsProcessor):
    """Shows processors the padding of prompts as negative tokens, where transformers' ``generate`` calls them.

    Args:
        processors: The processors.
        prompt: The attention mask of left-padded prompts: int64, shape (rows, tokens).
    """

    def __init__(self, processors: "Processors", prompt: Tensor) -> None:
        self.processors, self.prompt = processors, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Call them: ``input_ids`` (rows x beams, tokens), ``scores`` (rows x beams, vocabulary)."""
        rows, width = self.prompt.shape
        real = self.prompt.repeat_interleave(len(input_ids) // rows, dim=0).bool()
        shown = torch.cat([input_ids[:, :width].masked_fill(~real, -1), input_ids[:, width:]], dim=1)
        return self.processors(shown, scores)


class Sampling(LogitsProcessor):
    """Turns the likeliest token into a drawn one: the largest of the logits plus Gumbel noise is a draw of the softmax.

    Each row has a generator of its own on the CPU, seeded by the seed and the prompt, so that what is drawn depends
    neither on the other rows of a batch nor on the device.

    Args:
        temperature: What divides the logits; positive.
        top_p: Only the likeliest tokens whose probabilities reach this sum are drawn (arXiv 1904.09751).
        seed: The seed.
        prompts: The tokens of each row's prompt, without padding.
        top_k: Only so many of the likeliest tokens are drawn; 0 is all.
        min_p: Only tokens of this share of the likeliest one's probability are drawn (arXiv 2407.01082).
    """

    def __init__(
        self,
        temperature: float,
        top_p: float,
        seed: int,
        prompts: Sequence[Sequence[int]],
        top_k: int = 0,
        min_p: float = 0.0,
    ) -> None:
        self.warpers: list[Any] = [TemperatureLogitsWarper(temperature)]  # in the order of transformers
        self.warpers += [TopKLogitsWarper(top_k)] if top_k else []
        self.warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
        self.warpers += [MinPLogitsWarper(min_p)] if min_p else []
        self.generators = [torch.Generator().manual_seed(_seed(seed, prompt)) for prompt in prompts]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise: ``input_ids`` (rows, tokens), ``scores`` (rows, vocabulary)."""
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        empty = torch.empty(scores.shape[1], dtype=torch.float64)
        noise = torch.stack([empty.clone().exponential_(generator=generator) for generator in self.generators])
        return scores - noise.log().to(scores)  # minus the logarithm of an exponential number is a Gumbel one

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices only."""
        self.generators = [self.generators[row] for row in rows.tolist()]


class Processors(LogitsProcessorList):
    """Processors, which change the scores one after another."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **unused: Any) -> Tensor:
        """Change ``scores`` (rows x beams, vocabulary), given ``input_ids`` (rows x beams, tokens)."""
        for processor in self:
            scores = processor(input_ids, scores)
        return scores

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices only."""
        for processor in self:
            if isinstance(processor, Sampling):
                processor.keep(rows)

    def of(self, row: int) -> "Processors":
        """Return the processors of one row of the batch, which change nothing of these."""
        own = Processors([copy(processor) for processor in self])
        own.keep(torch.tensor([row]))
        return own


def _seed(seed: int, prompt: Sequence[int]) -> int:
    digest = hashlib.sha256(f"{seed}:{[*prompt]}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
