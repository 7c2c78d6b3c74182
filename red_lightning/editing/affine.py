"""Sums and stacks of affine edits ``h -> s * h + b``. The identity has ``s = 1`` and ``b = 0``.

- **sum**: what is added up is each edit's difference from the identity (task arithmetic, arXiv 2212.04089, section 2):
  ``s = 1 + sum_i w_i (s_i - 1)`` and ``b = sum_i w_i b_i``. With weights that sum to 1 it is plain interpolation,
  ``s = sum_i w_i s_i``; a weight of -1 subtracts an edit, and one edit alone is made weaker or stronger.
- **stack**: B after A at the same site is ``h -> s_B * (s_A * h + b_A) + b_B``, which is one edit again:
  ``s = s_B * s_A`` and ``b = s_B * b_A + b_B``. It is exactly what B means that was trained with A held fixed at the
  same sites; the order matters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from red_lightning.errors import UsageError

How = Literal["sum", "stack"]
"""How edits are combined."""

Map = tuple[Tensor, Tensor]
"""A site's scaling and bias in float64."""


def combine_vectors(
    edits: Sequence[tuple[str, Mapping[str, Tensor]]], weights: Sequence[float], how: How
) -> dict[str, Tensor]:
    """Combine the vectors of several edits; where one of them has none, it has the identity.

    Args:
        edits: For each of the edits what it is called, and its vectors, shape (width,), by the module's name and
            ``.scaling`` or ``.bias``.
        weights: One for each of the edits; a stack has none.
        how: ``sum``, or ``stack`` in the order given.

    Returns:
        The vectors of all modules: computed in float64, rounded once to float32.

    Raises:
        UsageError: Vectors of one module differ in their shape.
    """
    for edit, vectors in edits:
        if odd := [name for name in vectors if name.rpartition(".")[2] not in ("scaling", "bias")]:
            raise UsageError(f"'{edit}' holds '{odd[0]}', which is no scaling or bias, so it cannot be combined")
    shapes = {name.rpartition(".")[0]: vector.shape for _, vectors in edits for name, vector in vectors.items()}
    kinds = sorted({name.rpartition(".")[2] for _, vectors in edits for name in vectors}, reverse=True)
    combined: dict[str, Tensor] = {}
    for module, shape in shapes.items():
        maps = []
        for edit, vectors in edits:
            scaling, bias = vectors.get(f"{module}.scaling"), vectors.get(f"{module}.bias")
            if any(vector is not None and vector.shape != shape for vector in (scaling, bias)):
                raise UsageError(f"'{edit}' edits other columns of '{module}' than the other edits do")
            one, zero = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
            maps.append((one if scaling is None else scaling.double(), zero if bias is None else bias.double()))
        scaling, bias = _stacked(maps) if how == "stack" else _summed(maps, weights)
        result = {"scaling": scaling, "bias": bias}
        combined |= {f"{module}.{kind}": result[kind].float() for kind in kinds}
    return combined


def _summed(maps: Sequence[Map], weights: Sequence[float]) -> Map:
    scalings, biases = (torch.stack(vectors, dim=-1) for vectors in zip(*maps, strict=True))
    shares = torch.tensor(weights, dtype=torch.float64)
    rest = 1 - math.fsum(weights)  # the share of the identity
    return (scalings * shares).sum(-1) + rest, (biases * shares).sum(-1)


def _stacked(maps: Sequence[Map]) -> Map:
    scaling, bias = maps[0]
    for after, shift in maps[1:]:
        scaling, bias = after * scaling, after * bias + shift
    return scaling, bias
