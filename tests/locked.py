"""What pyproject.toml requires, and what requirements.lock pins."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"


def project() -> dict[str, Any]:
    """The content of pyproject.toml; the test is skipped on Python 3.10, which cannot read TOML."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content


def project_requirements() -> dict[str, list[Requirement]]:
    """What the package requires under ``dependencies``, what each extra adds, and what ``build-system`` requires."""
    content = project()
    lines = {
        "dependencies": content["project"]["dependencies"],
        **content["project"]["optional-dependencies"],
        **content["dependency-groups"],
        "build-system": content["build-system"]["requires"],
    }
    return {name: [Requirement(line) for line in group] for name, group in lines.items()}


def pins() -> dict[str, list[Requirement]]:
    """The lock's lines by library: one for each range of Pythons and systems."""
    found = defaultdict(list)
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text:
            pin = Requirement(text)
            found[canonicalize_name(pin.name)].append(pin)
    return dict(found)


def applies(requirement: Requirement, **environment: str) -> bool:
    """Whether a line holds on this Python and system, or on another."""
    return requirement.marker is None or requirement.marker.evaluate(environment)
