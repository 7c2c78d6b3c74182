"""What changes the logits of the next token while a batch is decoded, for each row as if it were alone."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)


class RepetitionPenalty(LogitsProcessor):
    """transformers' penalty, which would also count padding: EOS, with which Llama pads, would seem to have occurred.

    Args:
        penalty: What divides a logit.
        prompt: The attention mask of left-padded prompts: int64, shape (rows, tokens); None without a prompt.
    """

    def __init__(self, penalty: float, prompt: Tensor | None) -> None:
        self.penalty, self.prompt = RepetitionPenaltyLogitsProcessor(penalty), prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalise what has occurred: ``input_ids`` (rows x beams, tokens), ``scores`` (rows x beams, vocabulary)."""
        if self.prompt is not None:
            rows, width = self.prompt.shape
            real = self.prompt.repeat_interleave(len(input_ids) // rows, dim=0).bool()
            prompt, new = input_ids[:, :width], input_ids[:, width:]
            input_ids = torch.cat([torch.where(real, prompt, prompt[:, -1:]), new], dim=1)
        return self.penalty(input_ids, scores)


class Sampling(LogitsProcessor):
    """Turns the likeliest token into a drawn one: the largest of the logits plus Gumbel noise is a draw of the softmax.

    Each row has a generator of its own on the CPU, seeded by the seed and the prompt, so that what is drawn depends
    neither on the other rows of a batch nor on the device.

    Args:
        temperature: What divides the logits; positive.
        top_p: Only the likeliest tokens whose probabilities reach this sum are drawn (arXiv 1904.09751).
        seed: The seed.
        prompts: The tokens of each row's prompt, without padding.
    """

    def __init__(self, temperature: float, top_p: float, seed: int, prompts: Sequence[Sequence[int]]) -> None:
        self.temperature, self.top_p = TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)
        self.generators = [torch.Generator().manual_seed(_seed(seed, prompt)) for prompt in prompts]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise: ``input_ids`` (rows, tokens), ``scores`` (rows, vocabulary)."""
        scores = self.top_p(input_ids, self.temperature(input_ids, scores))
        empty = torch.empty(scores.shape[1], dtype=torch.float64)
        noise = torch.stack([empty.clone().exponential_(generator=generator) for generator in self.generators])
        return scores - noise.log().to(scores)  # minus the logarithm of an exponential number is a Gumbel one


def _seed(seed: int, prompt: Sequence[int]) -> int:
    digest = hashlib.sha256(f"{seed}:{[*prompt]}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
