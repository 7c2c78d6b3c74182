"""The lock pins all that is installed, within the ranges; README and CI install from it."""

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.locked import LOCK, ROOT, applies, pins, project_requirements

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OWNERS = {"tokenizers": "transformers", "pyarrow": "datasets"}
"""Libraries that the package imports and does not declare, because the owner allows only a narrow range."""


def pinned(name: str, python: str) -> Version | None:
    """The version that the lock gives on a Python under Linux; None if it gives none."""
    here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    lines = [pin for pin in pins().get(canonicalize_name(name), []) if applies(pin, **here)]
    assert len(lines) < 2, f"the lock gives {name} two versions on Python {python}: {lines}"
    return Version(str(lines[0].specifier).removeprefix("==")) if lines else None


@pytest.mark.parametrize("python", PYTHONS)
def test_each_requirement_is_pinned_within_its_range(python: str) -> None:
    for group, requirements in project_requirements().items():
        for requirement in requirements:
            if requirement.name == "red-lightning" or not applies(requirement, python_version=python):
                continue
            version = pinned(requirement.name, python)
            assert version is not None, f"{requirement.name} of {group} has no line in the lock"
            assert requirement.specifier.contains(version), f"the lock has {requirement.name} {version}: {requirement}"


def test_each_requirement_has_a_lower_bound_and_no_cap_by_habit() -> None:
    capped = set()
    for group, requirements in project_requirements().items():
        for requirement in requirements:
            operators = {part.operator for part in requirement.specifier}
            if group == "build-system":
                assert operators == {"=="}, f"pip's build environment knows no lock: pin {requirement.name}"
            elif requirement.name != "red-lightning":
                assert ">=" in operators, f"{requirement.name} has no lower bound"
                assert operators <= {">=", "<", "!="}, f"versions.py does not know the operators of {requirement}"
            if operators & {"<", "!="}:
                capped.add(requirement.name)
    assert capped == {"setuptools"}, "an upper bound takes a comment in pyproject.toml and a place here"


def _is_pinned(name: str, known: Mapping[str, Sequence[Requirement]]) -> bool:
    """Whether a library is installed in the version that the lock says, or not at all."""
    try:
        version = Version(distribution(name).version).public
    except PackageNotFoundError:
        return True
    return any(pin.specifier.contains(version, prereleases=True) for pin in known.get(canonicalize_name(name), []))


def test_the_lock_pins_the_closure_of_what_is_installed() -> None:
    """A lock that was cut short would let pip choose the versions of the rest."""
    try:
        distribution("red-lightning")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")
    known = pins()
    if other := [line.name for line in _direct() if not _is_pinned(line.name, known)]:
        pytest.skip(f"this environment is not the locked one: it has another {other[0]}")
    waiting = [(requirement.name, frozenset(requirement.extras)) for requirement in _direct()]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        assert canonicalize_name(name) in known, f"{name} is installed but not in the lock"
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if any(applies(requirement, extra=extra) for extra in ("", *extras)):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    assert len(seen) > 50


def _direct() -> list[Requirement]:
    groups = project_requirements()
    groups.pop("build-system")
    direct = [requirement for requirements in groups.values() for requirement in requirements]
    return [requirement for requirement in direct if requirement.name != "red-lightning" and applies(requirement)]


def test_what_the_package_imports_is_required() -> None:
    required = {
        canonicalize_name(requirement.name) for group in project_requirements().values() for requirement in group
    }
    modules = {"yaml": "pyyaml", "lm_eval": "lm-eval"}
    for file in (ROOT / "red_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                if top not in (*sys.stdlib_module_names, "red_lightning", *OWNERS):
                    assert canonicalize_name(modules.get(top, top)) in required, f"{file} imports {top}"


def test_the_readme_and_ci_install_from_the_lock() -> None:
    for path in ("README.md", ".ci/run"):
        text = (ROOT / path).read_text(encoding="utf-8")
        commands = re.findall(r"python -m pip install .*(?:-e \.|-e \"\.\[dev\]\") && .*", text)
        assert commands, f"{path} has no install command"
        for command in commands:
            assert f"-c {LOCK.name} " in command, f"{path} installs without the lock: {command}"


def test_the_locks_header_is_the_documented_command() -> None:
    command = re.search(r"^#    (uv pip compile .*)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    documented = re.search(
        r"#   (uv pip compile .*?) \\\n#     (.*)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert command is not None
    assert documented is not None
    assert f"{documented[1]} {documented[2]}".replace("--upgrade ", "") == command[1]
