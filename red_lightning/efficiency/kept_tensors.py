"""Choose what a forward pass stores for its backward pass, and recompute the rest."""

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from red_lightning.compat.autograd_graph import output_of, saved, version_of
from red_lightning.efficiency.recomputed_operations import RULES, convert

MOST_OPERATIONS = 6
"""By how many operations one tensor may be computed again, so that no chain of residuals grows with the depth."""


class Kept:
    """A tensor that is kept."""

    __slots__ = ("tensor", "version")
    operations = 0

    def __init__(self, tensor: Tensor) -> None:
        # detached: the graph holds what is kept, and would never be freed if that held the graph
        self.tensor = tensor if tensor.grad_fn is None else tensor.detach()
        self.version = version_of(tensor)

    def unpack(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: It was changed in place, which autograd itself does not look for where there are hooks.
        """
        if (version := version_of(self.tensor)) != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self.tensor.shape)} that the backward pass needs was changed in place: it "
                f"is at version {version} instead of {self.version}"
            )
        return self.tensor

    compute = unpack


class Rebuilt:
    """A tensor that is computed again.

    Args:
        function: Computes it.
        operands: What from.
        operations: By how many operations, those of its operands among them.
        dtype: Its dtype, which an operation in place does not take from its operands.
    """

    __slots__ = ("dtype", "function", "left", "operands", "operations", "users", "value")

    def __init__(
        self,
        function: Callable[..., Tensor],
        operands: "list[Kept | Rebuilt]",
        operations: int,
        dtype: torch.dtype,
    ) -> None:
        self.function, self.operands, self.operations, self.dtype = function, operands, operations, dtype
        self.users = self.left = 0
        self.value: Tensor | None = None

    def compute(self) -> Tensor:
        """The tensor."""
        if self.value is not None:
            return self.value
        value = self.function(*[operand.compute() for operand in self.operands])
        return value if value.dtype == self.dtype else value.to(self.dtype)

    def unpack(self) -> Tensor:
        """The tensor, for one of its users: computed for the first, and held until the last has had it."""
        with torch.no_grad():
            value = self.compute()
        self.left = (self.left or self.users) - 1
        self.value = value if self.left else None
        return value


class ForwardPass:
    """One forward pass: what is kept of it, and how the rest is computed again.

    Args:
        backbone: What is called.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self.known: dict[tuple[Any, int], Kept | Rebuilt] = {}
        self.hooks = saved_tensors_hooks(self.pack, methodcaller("unpack"))
        self.hooks.__enter__()

    def end(self) -> None:
        """Let autograd keep tensors as always, and forget the graph, which holds this."""
        self.hooks.__exit__()
        self.known.clear()

    def pack(self, tensor: Tensor) -> Kept | Rebuilt:
        """What autograd keeps in the place of a tensor."""
        node = tensor.grad_fn
        if node is None:  # a weight, a mask
            return Kept(tensor)
        number = tensor.output_nr
        packed = self.find(node, number) or self.narrow(tensor, node) or Kept(tensor)
        self.known[node, number] = packed
        if isinstance(packed, Rebuilt):
            packed.users += 1
        return packed

    def find(self, node: Any, number: int, deep: int = MOST_OPERATIONS) -> Kept | Rebuilt | None:
        """How an output of an operation is had from what is kept; None if it is not.

        Args:
            node: The operation, in the autograd graph.
            number: Which of its outputs.
            deep: How many operations may lie between it and what is kept.
        """
        if (found := self.known.get((node, number))) is not None:
            return found
        if hasattr(node, "variable"):  # a leaf
            return _constant(node.variable)
        rule = RULES.get(node.name())
        if rule is None or number or not deep or len(node.next_functions) != len(rule.saved):
            return None
        edges = list(zip(node.next_functions, rule.saved, strict=True))
        if any(source is None and name is None for (source, _), name in edges):
            return None
        operands: list[Any] = []
        for (source, output), name in edges:
            operands.append(name if source is None else self.find(source, output, deep - 1))
            if operands[-1] is None:
                return None
        operations = 1
        for place, operand in enumerate(operands):
            if isinstance(operand, str):  # last: to read it in a block with gradient checkpointing computes that again
                operand = operands[place] = _constant(saved(node, operand))
                if operand is None:
                    return None
            operations += operand.operations
        function = rule.function(node) if operations <= MOST_OPERATIONS else None
        made = output_of(node)
        return Rebuilt(function, operands, operations, made.dtype) if function and made else None

    def narrow(self, tensor: Tensor, node: Any) -> Rebuilt | None:
        """Keep the 16-bit numbers that a float32 tensor was converted from: converted back, they are the same."""
        if node.name() != "ToCopyBackward0" or tensor.dtype != torch.float32:
            return None
        source, output = node.next_functions[0]
        made, function = output_of(source, output), convert(node)
        if made is None or made.dtype not in (torch.bfloat16, torch.float16) or function is None:
            return None
        self.known[source, output] = Kept(tensor.detach().to(made.dtype))
        return Rebuilt(function, [self.known[source, output]], 1, tensor.dtype)


def _constant(tensor: Tensor | None) -> Kept | None:
    """An operand that no operation made: a weight, a dropout's mask; None if it is not there.

    A strategy that divides weights over processes has taken those of other blocks away again.
    """
    if tensor is None or not tensor.dim() or not 0 < tensor.nbytes <= tensor.untyped_storage().nbytes():
        return None
    return Kept(tensor)
