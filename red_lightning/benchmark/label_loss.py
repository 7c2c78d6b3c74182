"""The loss of a language model with a frozen head: a few logits at a time, against all of them at once.

The plain way is transformers' own: logits of every position, converted to float32, and the cross-entropy of all of
them. Both begin at the hidden states, and end at their gradients.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from red_lightning.benchmark.measure import Case, Goal, Row, Variant, compare, count
from red_lightning.benchmark.memory import peak_bytes
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import shape_of
from red_lightning.data.collation import IGNORED
from red_lightning.efficiency.loss_head import label_losses

TOKENS = {"tiny": 24, "small": 1536, "paper": 1536}
"""Size -> positions."""
LABELLED = 0.43
"""The share of labels among UltraFeedback's tokens."""
PLAIN, OURS = "all logits at once (transformers)", "a few logits at a time"
GOALS = {"float32": Goal(0.9, 0.9), "bfloat16": Goal(0.65, 0.65)}


def measure(settings: Settings) -> Case:
    """Time both and measure their memory, in float32 and in bfloat16, with a label everywhere and with fewer.

    Args:
        settings: How to measure; both dtypes are measured whatever it says.
    """
    rows: list[Row] = []
    checks: dict[str, bool] = {}
    for dtype in ("float32", "bfloat16"):
        head = _Head(settings, getattr(torch, dtype))
        for share in (1.0, LABELLED):
            labels = head.labels(share)
            ways = {PLAIN: partial(head.plain, labels), OURS: partial(head.ours, labels)}
            goals = {OURS: GOALS[dtype]} if share == 1 else None
            title = f"{dtype}, {head.title}, {share:.0%} labels"
            rows += compare(title, [Variant(name, run) for name, run in ways.items()], settings, "pass", goals=goals)
            peaks = {name: float(peak_bytes(run, settings.device)) for name, run in ways.items()}
            goals = {OURS: Goal(0.17, 0.17)} if share == 1 else None
            rows += count(title, peaks, settings, "bytes at the peak", goals=goals)
            if dtype == "float32":
                expected, found = head.plain(labels), head.ours(labels)
                checks[f"gradients of {share:.0%} labels are equal to 1e-6"] = _close(found, expected)
    return Case("Loss of a frozen head", rows, checks)


class _Head:
    """A Llama without blocks: a norm, and the head.

    Args:
        settings: Size, device and seed.
        dtype: Of weights and hidden states.
    """

    def __init__(self, settings: Settings, dtype: torch.dtype) -> None:
        shape, tokens = shape_of("llama", settings), TOKENS[settings.size]
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_attention_heads=shape.heads,
            num_hidden_layers=0,
        )
        with torch.random.fork_rng(devices=[]), torch.device(settings.device):
            torch.manual_seed(settings.seed)
            model: Any = LlamaForCausalLM(config)
            self.model = model.to(dtype).requires_grad_(False)
            self.hidden = torch.randn(1, tokens, shape.width).to(dtype)
            self.tokens = torch.randint(shape.vocabulary, (1, tokens))
        self.title = f"{tokens:,} positions of {shape.width}, vocabulary {shape.vocabulary:,}"

    def labels(self, share: float) -> Tensor:
        """A label at a share of the positions, the last ones."""
        labels = self.tokens.clone()
        labels[:, : round((1 - share) * labels.shape[1])] = IGNORED
        return labels

    def plain(self, labels: Tensor) -> Tensor:
        """The gradient of the mean loss by the hidden states."""
        return self._gradient(lambda **inputs: _plain_loss(self.model(**inputs).logits, labels))

    def ours(self, labels: Tensor) -> Tensor:
        """The same."""
        return self._gradient(lambda **inputs: label_losses(self.model, labels, **inputs).sum() / _count(labels))

    def _gradient(self, loss: Any) -> Tensor:
        hidden = self.hidden.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(inputs_embeds=hidden, use_cache=False), hidden)
        return gradient


def _plain_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.float()[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def _count(labels: Tensor) -> Tensor:
    return (labels[:, 1:] >= 0).sum()


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-6 * expected.norm())
