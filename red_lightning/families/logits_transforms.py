"""Transforms of the head's output to logits, for :attr:`Architecture.logits`."""

from typing import Any

import torch
from torch import Tensor


def softcapped(config: Any, output: Tensor) -> Tensor:
    """Return ``c * tanh(output / c)``; the output itself where the configuration has no c (Gemma 1, 3)."""
    cap = getattr(config, "final_logit_softcapping", None)
    return output if cap is None else torch.tanh(output / cap) * cap


def scaled(config: Any, output: Tensor) -> Tensor:
    """Multiply by the configuration's ``logit_scale``."""
    return output * config.logit_scale


def divided(config: Any, output: Tensor) -> Tensor:
    """Divide by the configuration's ``logits_scaling``."""
    return output / config.logits_scaling
