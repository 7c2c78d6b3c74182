"""One frozen backbone for several trainings: their batches go through it together, each edited by its own vectors.

A forward pass of a frozen backbone says nothing about whose rows it computes, so those of several trainings can lie in
one batch, side by side. Each gets its own rows of the output, as a tensor with nothing behind it; where its backward
pass ends there, all wait for each other once more, and one backward pass through the backbone gives the gradients of
every training's vectors. What else a training does (data, head, loss, optimizer, evaluation) it does alone.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from red_lightning.backbones.merged_editor import Batch, MergedEditor
from red_lightning.backbones.sites import Site
from red_lightning.backbones.surgery import EDITOR, attach, edited_modules, shared_copy

OUTPUTS = ("last_hidden_state", "pooler_output")
"""What is used of a backbone's output in training."""


@dataclass
class Call:
    """A training's call of a part of the backbone.

    Attributes:
        member: The training's number.
        part: The part's name in :func:`parts`.
        inputs: By the names of the part's arguments.
    """

    member: int
    part: str
    inputs: dict[str, Any]

    @property
    def likeness(self) -> tuple[Any, ...] | None:
        """What calls must have in common to be computed together.

        None if this one cannot be, because it has tensors that know no rows.
        """
        tensors = {name: value for name, value in self.inputs.items() if isinstance(value, Tensor)}
        rows = _rows(self)
        if any(value.dim() < 2 or len(value) != rows or _is_unfit_mask(value) for value in tensors.values()):
            return None
        others = tuple((name, value) for name, value in self.inputs.items() if name not in tensors)
        kinds = tuple((name, value.dim(), value.shape[1] if value.dim() == 4 else 0) for name, value in tensors.items())
        return self.part, kinds, repr(others)


class Pass:
    """One forward pass of several trainings, which waits for its backward pass.

    Args:
        rows: How many rows each training has in it.
    """

    def __init__(self, rows: dict[int, int]) -> None:
        self.rows = rows
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def give(self, tensor: Tensor) -> Tensor:
        """A training's part of an output, with nothing behind it."""
        if not tensor.requires_grad:  # nothing is edited before it
            return tensor
        given = tensor.detach().requires_grad_()
        self.pairs.append((tensor, given))
        return given

    def backward(self) -> None:
        """Let the gradients of what was given go on to the vectors."""
        pairs = [(tensor, given.grad) for tensor, given in self.pairs if given.grad is not None]
        if pairs:
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])


class Merged:
    """A frozen backbone that several trainings share."""

    def __init__(self) -> None:
        self.backbone: Any = None
        self.twins: dict[int, Any] = {}
        self.passes: list[Pass] = []
        self.computed = 0
        """How many passes were computed for several trainings."""
        self._batch = Batch()
        self._parts: dict[str, nn.Module] = {}

    def join(self, member: int, load: Callable[[], nn.Module], meet: Callable[[Call], Any]) -> nn.Module:
        """A backbone for one more training: modules of its own, with the weights of all.

        Args:
            member: The training's number.
            load: Loads the backbone, for the first of them.
            meet: Called in training with what the training's backbone is called with; returns what that returns.
        """
        if self.backbone is None:
            self.backbone = load()
        own = self.twins[member] = shared_copy(self.backbone)
        for name, part in parts(own).items():
            _let_meet(part, partial(_call, meet, member, name))
        return own

    def compute(self, calls: Sequence[Call]) -> dict[int, Any]:
        """Compute what several trainings, or one, have called: each gets what its own backbone would have returned.

        Args:
            calls: At most one of each training, all of the same likeness.

        Returns:
            The outputs, by the training's number.
        """
        if len(calls) == 1:
            (call,) = calls
            return {call.member: _plain_forward(parts(self.twins[call.member])[call.part], call.inputs)}
        self._prepare()
        self.computed += 1
        part = self._parts[calls[0].part]
        rows = self._batch.rows = {call.member: _rows(call) for call in calls}
        fill = getattr(self.backbone.config, "pad_token_id", None) or 0
        output = part.forward(**_joined([call.inputs for call in calls], fill))
        this = Pass(rows)
        self.passes.append(this)
        given = {call.member: type(output)() for call in calls}
        for name in (name for name in OUTPUTS if isinstance(output.get(name), Tensor)):
            for call, own in zip(calls, output[name].split([*rows.values()]), strict=True):
                given[call.member][name] = this.give(own if own.dim() < 3 else own[:, : _tokens(call)])
        return given

    def backward(self) -> None:
        """Compute the gradients of every training's vectors, when the backward passes of all have ended."""
        passes, self.passes = self.passes, []
        for this in reversed(passes):  # an encoder's output is given to its decoder
            self._batch.rows = this.rows  # gradient checkpointing edits again
            this.backward()

    def _prepare(self) -> None:
        """Make the modules that compute for all, once the editors of all are known."""
        if self._parts:
            return
        together = shared_copy(self.backbone).train()
        device = next(next(iter(self.twins.values())).parameters()).device
        sites: dict[str, dict[int, Any]] = {}
        for member, own in self.twins.items():
            for name, module in edited_modules(own):
                sites.setdefault(name, {})[member] = module.get_submodule(EDITOR)
        for name, editors in sites.items():
            attach(together, Site(name, None, 0), MergedEditor(name, editors, self._batch))
        self._parts = parts(together.to(device))


def parts(backbone: Any) -> dict[str, nn.Module]:
    """What a task calls in training, itself or through the backbone, by a name.

    The encoder and the decoder, or the hidden layers of either alone; no language-model head.
    """
    if backbone.config.is_encoder_decoder:
        return {"encoder": backbone.get_encoder(), "decoder": backbone.get_decoder()}
    return {"layers": backbone.get_decoder()}  # which is an encoder itself, too


def _call(meet: Callable[[Call], Any], member: int, part: str, inputs: dict[str, Any]) -> Any:
    return meet(Call(member, part, inputs))


def _let_meet(part: nn.Module, meet: Callable[[dict[str, Any]], Any]) -> None:
    """Hand over the calls of a module in training, as a subclass of its class would.

    PyTorch's parametrizations and ``fully_shard`` change a module's class in this way.
    """
    plain = type(part)
    names = tuple(inspect.signature(plain.forward).parameters)[1:]

    def forward(self: Any, *args: Any, **inputs: Any) -> Any:
        if not (torch.is_grad_enabled() and self.training):
            return plain.forward(self, *args, **inputs)
        return meet({**dict(zip(names, args, strict=False)), **inputs})

    part.__class__ = type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})


def _plain_forward(part: nn.Module, inputs: dict[str, Any]) -> Any:
    """What a module that meets others would have returned by itself."""
    return type(part).__mro__[1].forward(part, **inputs)  # type: ignore[attr-defined]


def _rows(call: Call) -> int:
    return len(next(value for value in call.inputs.values() if isinstance(value, Tensor)))


def _tokens(call: Call) -> int:
    return next(value for value in call.inputs.values() if isinstance(value, Tensor)).shape[1]


def _joined(inputs: Sequence[Mapping[str, Any]], fill: int) -> dict[str, Any]:
    """The inputs of all trainings: rows one below the other, padded on the right to the longest."""
    joined = dict(inputs[0])
    for name in (name for name, value in joined.items() if isinstance(value, Tensor)):
        tensors = [own[name] for own in inputs]
        longest = max(map(_length, tensors))
        value = fill if name.endswith("input_ids") else 0
        padded = [_padded(tensor, longest, value) for tensor in tensors]
        joined[name] = torch.cat(padded)
    return joined


def _is_unfit_mask(tensor: Tensor) -> bool:
    """Whether a tensor is more than rows, tokens and a width, but no mask of every pair of tokens."""
    return tensor.dim() > 4 or (tensor.dim() == 4 and tensor.shape[-2] != tensor.shape[-1])


def _length(tensor: Tensor) -> int:
    return tensor.shape[-1 if tensor.dim() == 4 else 1]


def _padded(tensor: Tensor, tokens: int, value: int) -> Tensor:
    """A tensor of shape (rows, tokens), (rows, tokens, width) or (rows, 1, tokens, tokens) with more tokens.

    In a mask of every pair, True or 0 where the one token sees the other, one that pads sees itself alone: a token that
    sees nothing has no number for its attention.
    """
    if (more := tokens - _length(tensor)) == 0:
        return tensor
    if tensor.dim() < 4:
        return pad(tensor, (0, more) if tensor.dim() == 2 else (0, 0, 0, more), value=value)
    sees, hidden = (True, False) if tensor.dtype == torch.bool else (0.0, torch.finfo(tensor.dtype).min)
    padded = pad(tensor, (0, more, 0, more), value=hidden)
    padded.diagonal(dim1=-2, dim2=-1)[..., -more:] = sees
    return padded
