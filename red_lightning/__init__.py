"""Representation Editing (RED, arXiv 2402.15179) on PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from red_lightning.artifacts import Edited, apply_edits, load, load_head, save_edits
    from red_lightning.methods import RED, FullFineTuning, HeadOnly, Method, RepresentationEditor

__all__ = [
    "RED",
    "Edited",
    "FullFineTuning",
    "HeadOnly",
    "Method",
    "RepresentationEditor",
    "apply_edits",
    "load",
    "load_head",
    "save_edits",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``--help`` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    place = "artifacts" if name in ("Edited", "apply_edits", "load", "load_head", "save_edits") else "methods"
    return getattr(import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
