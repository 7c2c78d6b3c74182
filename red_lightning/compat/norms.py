"""The largest absolute value among many tensors, in few kernels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def largest_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute value of some tensors; NaN if any of them holds one.

    torch: ``torch.nn.utils.get_total_norm`` is public, but only since 2.6; before, this takes one kernel a tensor.

    Args:
        tensors: At least one, none of them empty.
    """
    if hasattr(torch.nn.utils, "get_total_norm"):
        return torch.nn.utils.get_total_norm(tensors, math.inf)
    norms = [torch.linalg.vector_norm(tensor, math.inf) for tensor in tensors]
    return torch.stack([norm.to(norms[0].device) for norm in norms]).max()
