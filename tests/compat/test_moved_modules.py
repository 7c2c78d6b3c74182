"""Scripts and configs of version 0.1.0 name modules that have moved since."""

import importlib
import re

import pytest

from red_lightning.compat.moved_modules import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_every_moved_module_is_found_and_its_new_place_exists(old: str) -> None:
    module = importlib.import_module(f"red_lightning.{old}")
    new = importlib.import_module(f"red_lightning.{MOVED[old][0]}")
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", "").startswith(new.__name__)]
    name = (getattr(new, "__all__", None) or own)[0]
    with pytest.warns(FutureWarning, match=re.escape(f"{old}.{name} has moved to {new.__name__}.{name}")):
        assert getattr(module, name) is getattr(new, name)


def test_names_that_never_existed_are_not_found() -> None:
    module = importlib.import_module("red_lightning.artifacts")
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        module.lode  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("red_lightning.artifacts.never")
