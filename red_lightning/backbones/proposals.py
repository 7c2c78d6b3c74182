"""Sites proposed for a model whose family has no record: the linears in its blocks that return hidden states."""

import re
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

MOST = 12
"""Patterns that one error shows."""


def proposed_sites(backbone: nn.Module) -> tuple[list[str], list[str]]:
    """Return module-name patterns of the linears in the blocks whose output is as wide as the hidden states.

    Args:
        backbone: Any model. Its blocks are the modules of a numbered list (``nn.ModuleList``).

    Returns:
        All patterns, in the order of the modules; and those that look like the output of an FFN. An FFN narrows to the
        hidden states, and its output is the last linear of its block that does. If none narrows, it is the last linear.
    """
    width = _hidden_width(backbone)
    inputs: dict[str, int] = {}
    for name, module in backbone.named_modules():
        sizes = _sizes(module)
        if sizes is not None and sizes[1] == width and (pattern := _pattern(name)) is not None:
            inputs.setdefault(pattern, sizes[0])
    likely: dict[str, str] = {}  # by list of blocks
    for pattern in inputs:
        if width is not None and inputs[pattern] > width:
            likely[_blocks_of(pattern)] = pattern
    for pattern in inputs:
        blocks = _blocks_of(pattern)
        if blocks not in likely:
            likely[blocks] = [other for other in inputs if _blocks_of(other) == blocks][-1]
    return list(inputs), list(dict.fromkeys(likely.values()))


def proposal(backbone: nn.Module) -> str:
    """Return the sentence of an error that proposes sites; empty if no linear of the model could be one."""
    patterns, likely = proposed_sites(backbone)
    if not patterns:
        return ""
    more = f" and {len(patterns) - MOST} more" if len(patterns) > MOST else ""
    listed = ", ".join(f"'{pattern}'" for pattern in patterns[:MOST])
    return (
        f"the linears in its blocks that are as wide as the hidden states are {listed}{more}; give patterns as sites, "
        f"for the outputs of the FFN probably sites: {likely}"
    )


def _pattern(name: str) -> str | None:
    """A module's name with a star for each number; None outside of numbered lists."""
    pattern = re.sub(r"\.\d+(?=\.)", ".*", f".{name}")[1:]
    return pattern if "*" in pattern else None


def _blocks_of(pattern: str) -> str:
    return pattern.partition("*")[0]


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Columns of a linear's input and output; None for other modules."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else None


def _hidden_width(backbone: Any) -> int | None:
    """Columns of the hidden states: what the configuration says, else what the head reads."""
    config = getattr(backbone, "config", None)
    text = getattr(config, "text_config", None) or config
    if isinstance(width := getattr(text, "hidden_size", None), int):
        return width
    head = backbone.get_output_embeddings() if hasattr(backbone, "get_output_embeddings") else None
    return head.in_features if isinstance(head, nn.Linear) else None
