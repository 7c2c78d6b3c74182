"""Propose sites for unsupported architectures: linears in blocks that return hidden states."""

import re
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

_NUMBER = re.compile(r"\.\d+(?=\.)")

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
    found: dict[str, list[str]] = {}  # modules by their pattern
    narrows: dict[str, bool] = {}
    for name, module in backbone.named_modules():
        sizes = _sizes(module)
        if sizes is not None and sizes[1] == width and (pattern := _NUMBER.sub(".*", name)) != name:
            found.setdefault(pattern, []).append(name)
            narrows[pattern] = sizes[0] > sizes[1]
    last: dict[str, str] = {}  # by list of blocks
    for wanted in (False, True):
        last |= {pattern.partition("*")[0]: pattern for pattern in found if narrows[pattern] or not wanted}
    every = [name for name, _ in backbone.named_modules()]
    exact = {pattern: _exact(pattern, names, every) for pattern, names in found.items()}
    likely = dict.fromkeys(last.values())
    return [p for pattern in found for p in exact[pattern]], [p for pattern in likely for p in exact[pattern]]


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


def _exact(pattern: str, names: list[str], every: list[str]) -> list[str]:
    """Patterns that match some modules and no other: a star matches dots too, so BERT's FFN ends like its attention."""
    if sum(fnmatchcase(name, pattern) for name in every) == len(names):
        return [pattern]
    return list(dict.fromkeys(_NUMBER.sub(lambda found: "." + "[0-9]" * (len(found[0]) - 1), name) for name in names))


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
