"""Selective activation recomputation: the backward pass computes cheap tensors again instead of keeping them.

Autograd keeps the tensors that operations need for their gradients. Many of them follow, by a few elementwise
operations, from others that are kept as well: the residual stream after an edit from the one before it and the edit's
own input, a factor of a gated FFN from its gate, float32 numbers from the 16-bit numbers that they were converted from.
How a tensor was made is written in the autograd graph, whatever the model's code looks like. So this reads it there,
keeps what cannot be had otherwise, and lets the same operations compute the rest again, bit for bit (after Korthikanti
et al., arXiv 2205.05198, section 5, who choose by hand what is large and cheap to compute again).

No matrix product and nothing random is computed twice. What ``operations.py`` does not know is kept as always.
"""

import threading
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from red_lightning.backbones.activations import replace_activations
from red_lightning.backbones.operations import RULES, convert, note_epsilon
from red_lightning.compat.autograd_graph import output_of, saved, version_of

MOST_OPERATIONS = 6
"""By how many operations one tensor may be computed again, so that no chain of residuals grows with the depth."""

SMALLEST = 2**17
"""Numbers in a hidden state of all tokens, below which a forward pass keeps little and looking at each tensor of it
takes longer than to compute it."""


def recompute_selectively(backbone: nn.Module, always: bool = False) -> None:
    """Let forward passes of a backbone keep less for their backward passes.

    Outputs are bit for bit the same, and so are gradients, but for rounding where an activation is replaced
    (``activations.py``). Left alone are passes without gradients, what ``torch.compile`` traces, and blocks with
    gradient checkpointing.

    Args:
        backbone: A Hugging Face model.
        always: Do it where it costs time, too: in small passes, and on a CPU in 16 bits.
    """
    replace_activations(backbone)
    backbone.register_forward_pre_hook(partial(_begin, always), with_kwargs=True)
    backbone.register_forward_hook(_end, always_call=True)
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(note_epsilon)


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


class _Running(threading.local):
    """The forward pass that runs in this thread."""

    forward: ForwardPass | None = None


_running = _Running()


def _begin(always: bool, backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a backbone."""
    if torch.compiler.is_compiling():
        return
    if _running.forward is not None:  # left behind by an interrupt, which is no Exception
        _end(_running.forward.backbone)
    if torch.is_grad_enabled() and (always or _pays(backbone, args, kwargs)):
        _running.forward = ForwardPass(backbone)


def _pays(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a forward pass keeps much, and nothing takes long to compute again."""
    inputs = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 1)
    rows, tokens = next((value.shape[:2] for value in inputs), (0, 0))
    if rows * tokens * getattr(backbone.config, "hidden_size", SMALLEST) < SMALLEST:
        return False
    weight = next(backbone.parameters())
    return weight.device.type != "cpu" or (weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"))


def _end(backbone: nn.Module, args: Any = None, output: Any = None) -> None:
    """Forward hook of a backbone; runs after an exception, too."""
    if not torch.compiler.is_compiling() and _running.forward is not None and _running.forward.backbone is backbone:
        _running.forward.end()
        _running.forward = None
