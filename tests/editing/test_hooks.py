"""Hooks that are found, switched off and removed again, in a model and in its copies and pickles."""

import copy
import io
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from red_lightning.editing.hooks import add_hook, has_hook, hooks_of, remove_hooks

X = torch.tensor([[1.0, 2.0]])


def plus_one(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output + 1


def times(factor: float, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * factor


def read_next(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return (args[0] + 1,), kwargs


def tables(module: nn.Module) -> list[Any]:
    names = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return [dict(getattr(module, name)) for name in names]


def hooked() -> nn.Module:
    module = nn.Identity()
    add_hook(module, plus_one)
    add_hook(module, partial(times, 2.0))
    add_hook(module, read_next, before=True, with_kwargs=True)
    return module


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_they_are_called_in_order_and_removed_one_by_one() -> None:
    module = hooked()
    assert torch.equal(module(X), (X + 2) * 2)
    assert has_hook(module, plus_one) and has_hook(module, times) and not has_hook(module, pickled)
    remove_hooks(module, plus_one)
    assert torch.equal(module(X), (X + 1) * 2) and not has_hook(module, plus_one)
    remove_hooks(module, times, read_next)
    assert module(X) is X and tables(module) == tables(nn.Identity())
    assert set(vars(module)) == set(vars(nn.Identity()))  # nothing is left


def test_the_hooks_of_others_stay_where_they_are() -> None:
    module, seen = nn.Identity(), []
    add_hook(module, plus_one)
    handle = module.register_forward_hook(lambda *call: seen.append(call[-1]))
    add_hook(module, partial(times, 2.0))
    for hook in hooks_of(module):
        hook.on = False
    assert torch.equal(module(X), X)
    for hook in hooks_of(module):
        hook.on = True
    assert torch.equal(module(X), (X + 1) * 2)
    assert list(map(torch.equal, seen, [X, X + 1])) == [True, True]  # still between ours
    remove_hooks(module, plus_one, times)
    assert len(tables(module)[0]) == 1
    handle.remove()


@pytest.mark.parametrize("twin_of", [copy.deepcopy, pickled, saved])
def test_copies_have_their_own(twin_of: Any) -> None:
    module = hooked()
    twin = twin_of(module)
    for hook in hooks_of(twin):
        hook.on = False
    assert torch.equal(twin(X), X) and torch.equal(module(X), (X + 2) * 2)
    for hook in hooks_of(twin):
        hook.on = True
    remove_hooks(twin, plus_one, times, read_next)
    assert twin(X) is X and tables(twin) == tables(nn.Identity())
    assert torch.equal(module(X), (X + 2) * 2) and len(hooks_of(module)) == 3


def test_the_state_dict_knows_nothing_of_them() -> None:
    module = nn.Linear(2, 2)
    before = set(module.state_dict())
    add_hook(module, plus_one)
    assert set(module.state_dict()) == before
    assert len([*module.children()]) == 0
