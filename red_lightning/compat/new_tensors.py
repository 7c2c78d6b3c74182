"""The tensors that a piece of code makes, those inside torch's own operations too."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def watch_tensors(note: Callable[[Tensor], None]) -> Iterator[None]:
    """Within, call ``note`` with every output of every operation.

    torch: ``torch.utils._python_dispatch.TorchDispatchMode``, seen in 2.4 to 2.13. Without it the benchmark of saved
    activations cannot run; nothing else needs it, so nothing else imports this file.
    """

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            for tensor in tensors_in(output):
                note(tensor)
            return output

    with Watch():
        yield


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in what an operation or a model returns: a tensor, a mapping, a list or tuple of these, or others."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
