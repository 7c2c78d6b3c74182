"""What torch's autograd graph knows about the operations that made a tensor.

torch tells it by private names. Where an installed release lacks one, each function here returns what makes selective
recomputation keep the tensor, so that a run takes more memory and computes the same.
"""

from typing import Any

from torch import Tensor


def saved(node: Any, name: str) -> Any:
    """Return what an operation has saved for its backward pass; None if it has saved nothing under that name.

    torch: ``node._saved_<name>``, the C++ name of an argument or result, seen in 2.4 to 2.13. Without it the operations
    that need it are not computed again.

    Args:
        node: The operation, a ``grad_fn``.
        name: Its argument or result, such as ``alpha`` of ``AddBackward0``.
    """
    return getattr(node, f"_saved_{name}", None)


def output_of(node: Any, number: int = 0) -> Any:
    """Return the ``shape``, ``dtype`` and ``device`` of an operation's output, as one object; None if not known.

    torch: ``node._input_metadata`` (the input of the backward pass), seen in 2.6 to 2.13; 2.4 lacks it. Without it
    nothing is computed again.

    Args:
        node: The operation, a ``grad_fn``.
        number: Which of its outputs.
    """
    known = getattr(node, "_input_metadata", ())
    return known[number] if number < len(known) else None


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place.

    torch: ``tensor._version``, seen in 2.4 to 2.13. Without it this is always 0, and a change in place of a tensor
    that the backward pass needs is not found where tensors are recomputed.
    """
    return getattr(tensor, "_version", 0)
