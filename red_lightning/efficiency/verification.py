"""Compare each fast path with its plain equivalent at first use, and fall back if they differ.

A fast path relies on how another library computes something: how a cache is passed, what becomes of the head's output,
which tokens attend to which. A release of that library may change it without an error. So the first time that a fast
path is used on a kind of model, both ways compute the same few tokens of the real input. If they differ by more than
rounding, a :class:`FastPathWarning` is given once, and the plain path is used from then on.

The kind of a model is its class, its configuration, its modules (edits are modules too), its dtype and its device. A
verdict holds for the process, and for every model of that kind.
"""

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import Tensor, distributed, nn

from red_lightning.backbones.quantization import is_quantized
from red_lightning.backbones.sharding import needs_every_process
from red_lightning.compat.attention import attention_of
from red_lightning.editing.structure import structure_changes
from red_lightning.errors import UsageError, first_line

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference that counts as rounding, as a share of the spread of the plain values, by the dtype computed in.

Twelve layers in bfloat16 differ by up to 1e-2 between a cached and an uncached pass; a wrong mask or position by 0.1
and more."""
QUANTIZED_TOLERANCE = 5e-2
MASKED = 100.0
"""How many spreads below the median a value counts as masked."""


class FastPathWarning(UserWarning):
    """A fast path gives other values than its plain equivalent, which is used instead."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison of a fast path found.

    Attributes:
        path: Name of the fast path.
        difference: Largest absolute difference, as a share of the spread of the plain values.
        tolerance: Largest difference that counts as rounding.
        seconds: How long the comparison took.
        cause: What the fast path raised; empty if nothing.
    """

    path: str
    difference: float
    tolerance: float
    seconds: float
    cause: str = ""

    @property
    def holds(self) -> bool:
        """Whether the fast path is used."""
        return self.difference <= self.tolerance  # false for NaN


STRICT = "red_lightning_strict"
"""The attribute of a strict model, which its copies have too."""

_verdicts: dict[tuple[str, str], Verdict] = {}
_of_model: "WeakKeyDictionary[nn.Module, dict[str, tuple[int, Verdict]]]" = WeakKeyDictionary()
_comparing: set[str] = set()
_one_at_a_time = RLock()


def verified(path: str, backbone: Any, fast: Callable[[], Tensor], plain: Callable[[], Tensor]) -> bool:
    """Return whether a fast path gives what its plain equivalent gives, to rounding.

    Both are computed at the first use only, in evaluation mode and without gradients. No random numbers are drawn. If
    the plain values are all alike (an empty text, outputs that are NaN), they tell nothing, and the next use compares.

    Args:
        path: Name of the fast path, as users read it.
        backbone: The model that it runs on.
        fast: Computes a few values by the fast path, such as logits.
        plain: Computes the same values by the model's own forward pass; same shape.

    Raises:
        UsageError: They differ, and the model is strict (see :func:`require_equal`).
    """
    known = _of_model.setdefault(backbone, {})
    if path in known and known[path][0] == structure_changes():
        return known[path][1].holds
    if torch.compiler.is_compiling():
        return True
    with _one_at_a_time:  # another thread waits for the verdict; this one may be comparing already
        if path in _comparing:
            return True
        key, strict = (path, _kind(backbone)), getattr(backbone, STRICT, False)
        verdict = _verdicts.get(key)
        if verdict is None:
            verdict = _compare(path, backbone, fast, plain)
            if verdict is None:
                return True
            if not math.isinf(verdict.tolerance):
                _verdicts[key] = verdict
            if not verdict.holds and not strict and _first_process():
                warnings.warn(_explained(verdict, backbone) + "; the plain path is used instead", FastPathWarning, 3)
    if not verdict.holds and strict:
        _verdicts.pop(key, None)  # so that a model that is not strict is warned about
        raise UsageError(
            _explained(verdict, backbone) + "; leave --model.backbone_options.strict out to use the plain path"
        )
    known[path] = structure_changes(), verdict
    return verdict.holds


def require_equal(backbone: nn.Module) -> None:
    """Let a fast path that differs from its plain equivalent be an error on this model."""
    setattr(backbone, STRICT, True)


def verdicts_of(backbone: nn.Module) -> dict[str, Verdict]:
    """Return what was found about the fast paths used on a model, by their names."""
    return {path: verdict for path, (_, verdict) in sorted(_of_model.get(backbone, {}).items())}


def refused_paths(backbone: nn.Module) -> dict[str, str]:
    """Return why fast paths are not used on a model, by their names, for ``results.json``; empty if all are."""
    return {path: _reason(verdict) for path, verdict in verdicts_of(backbone).items() if not verdict.holds}


def difference(fast: Tensor, plain: Tensor) -> float:
    """Return the largest difference of two tensors, as a share of the second's spread: its largest less its median.

    Where the plain values are not finite, the fast ones must be the same.
    """
    if fast.shape != plain.shape:
        return math.inf
    fast, plain = fast.detach().double(), plain.detach().double()
    finite = plain.isfinite()
    if not finite.any():
        return 0.0 if torch.equal(finite, fast.isfinite()) else math.inf
    values = plain[finite]
    spread = max(float(values.max() - values.median()), 1e-2 * float(values.median().abs()), 1e-6)
    lowest = float(values.median()) - MASKED * spread
    alike = plain > lowest  # what lies far below, such as -1e9, masks part of a vocabulary
    if not fast[alike].isfinite().all() or not (fast[~alike & ~plain.isnan()] < lowest + MASKED / 2 * spread).all():
        return math.inf
    return float((fast[alike] - plain[alike]).abs().max()) / spread


def _compare(path: str, backbone: Any, fast: Callable[[], Tensor], plain: Callable[[], Tensor]) -> Verdict | None:
    """The verdict; None if the plain values tell nothing."""
    started, cause = time.perf_counter(), ""
    _comparing.add(path)
    try:
        with _evaluating(backbone):
            try:
                right = plain()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the few tokens suit the model less than the real ones: nothing to compare with
                cause = f"not compared: {type(error).__name__}: {first_line(error)}"
                return Verdict(path, 0.0, math.inf, time.perf_counter() - started, cause)
            if len(right[right.isfinite()].unique()) < 2 and not needs_every_process(backbone):
                return None
            try:
                largest = difference(fast(), right)
            except (torch.OutOfMemoryError, UsageError):
                raise
            except Exception as error:
                largest, cause = math.inf, f"{type(error).__name__}: {first_line(error)}"
    finally:
        _comparing.discard(path)
    if needs_every_process(backbone):  # all processes must go the same way
        shared = torch.tensor(largest, device=right.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        largest = float(shared)
    return Verdict(path, largest, tolerance(backbone), time.perf_counter() - started, cause)


@contextmanager
def _evaluating(backbone: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode, module by module as before afterwards, and uses no compiled blocks."""
    training = [(module, module.training) for module in backbone.modules()]
    stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    try:
        backbone.eval()
        with torch.no_grad():
            if stance is None:
                yield
            else:
                with stance("force_eager"):
                    yield
    finally:
        for module, was in training:
            module.training = was


def tolerance(backbone: Any) -> float:
    """Return the largest difference that counts as rounding on a model, in the dtype that it computes in now."""
    weight = next((p for p in backbone.parameters() if p.is_floating_point()), None)
    if weight is None or is_quantized(backbone):
        return QUANTIZED_TOLERANCE
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    share = TOLERANCES.get(dtype, QUANTIZED_TOLERANCE)
    if dtype == torch.float32 and kind != "cpu" and torch.get_float32_matmul_precision() != "highest":
        share = TOLERANCES[torch.float16]  # TF32 has float16's 10 bits
    return share


def _kind(backbone: Any) -> str:
    """A digest of what a model computes: its class, configuration, modules, dtype and device."""
    weight = next(backbone.parameters(), None)
    autocast = weight is not None and torch.is_autocast_enabled(weight.device.type)
    parts = [backbone.config.to_json_string(), attention_of(backbone), str(autocast)]
    parts += [] if weight is None else [str(weight.dtype), weight.device.type]
    parts += [f"{name} {type(m).__module__}.{type(m).__qualname__}" for name, m in backbone.named_modules()]
    parts += [f"{name} {vars(m)['forward']!r}" for name, m in backbone.named_modules() if "forward" in vars(m)]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _explained(verdict: Verdict, backbone: Any) -> str:
    return (
        f"the fast path '{verdict.path}' {_reason(verdict)} on a {type(backbone).__name__} with transformers "
        f"{transformers.__version__} and torch {torch.__version__}: please report this line"
    )


def _reason(verdict: Verdict) -> str:
    if verdict.cause:
        return f"raised {verdict.cause}"
    return f"differs from the plain path by {verdict.difference:.2g} (allowed: {verdict.tolerance:g})"


def _first_process() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0
