"""Representation Editing (RED, arXiv 2402.15179) on PyTorch Lightning."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from red_lightning.compat.moved_modules import find_moved_modules
from red_lightning.compat.versions import VersionError, check_versions

if TYPE_CHECKING:
    from red_lightning.adapters import Edited, apply_edits, load, load_head, save_edits
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

try:
    check_versions()
except VersionError as error:
    # Python imports the package before `python -m` or the console script runs `main`, which prints such errors.
    # sys.argv[0] is "-m" while `python -m` locates its module
    if sys.argv[:1] != ["-m"] and Path(sys.argv[0] if sys.argv else "").stem != "red-lightning":
        raise
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None

find_moved_modules()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``--help`` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    place = "adapters" if name in ("Edited", "apply_edits", "load", "load_head", "save_edits") else "methods"
    return getattr(import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
