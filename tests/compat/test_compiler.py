"""The settings of torch.compile that compiled blocks rely on."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from red_lightning.compat.compiler import allow_variants, guard_hooks
from red_lightning.errors import UsageError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    settings = torch._dynamo.config  # type: ignore[attr-defined]
    names = ("skip_nnmodule_hook_guards", "cache_size_limit")
    before = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    yield
    for name, value in before.items():
        setattr(settings, name, value)


def test_hooks_that_come_and_go_are_noticed() -> None:
    guard_hooks()
    module = torch.nn.Linear(2, 2)
    compiled = torch.compile(module, backend="eager")
    x = torch.ones(1, 2)
    plain = compiled(x)
    handle = module.register_forward_hook(lambda module, args, output: output + 1)
    message = "skip_nnmodule_hook_guards of torch._dynamo.config has no effect any more: see compat/compiler.py"
    assert torch.equal(compiled(x), plain + 1), message
    handle.remove()
    assert torch.equal(compiled(x), plain), message


def test_without_the_setting_compiling_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_dynamo", SimpleNamespace(config=object()))
    with pytest.raises(UsageError, match=rf"torch {torch.__version__.split('+')[0]}.*leave compile out"):
        guard_hooks()


def test_a_limit_is_raised_and_never_lowered() -> None:
    settings = torch._dynamo.config  # type: ignore[attr-defined]
    allow_variants(200)
    message = "the limit of variants of torch.compile has a new name: see compat/compiler.py"
    assert settings.cache_size_limit == 200, message
    allow_variants(100)
    assert settings.cache_size_limit == 200
