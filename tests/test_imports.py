"""The order of the package: who may import whom, and how large things may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import red_lightning

PACKAGE = Path(red_lightning.__file__).parent
LEVELS = (
    {"errors", "compat"},
    {"hub", "atomic_files", "jsonl", "tables"},
    {"families", "metrics"},
    {"backbones", "data"},
    {"editing", "quickstart"},
    {"efficiency", "methods"},
    {"adapters", "paper", "strategies"},
    {"callbacks", "export", "generation", "studies"},
    {"pictures", "tasks"},
    {"runs", "benchmark"},
    {"evaluation"},
    {"cli"},
    {"__main__", "__init__"},
)
"""The parts of the package, each of which may import itself and any part of a lower level."""
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and part of each import of the package's own parts, those inside functions and by name included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant | ast.JoinedStr) and _is_import_by_name(node):
            names = [_text(node)]
        for name in names:
            path = name.split(".")
            if path[0] == "red_lightning" and len(path) > 1 and path[1] and not path[1][:1].isupper():
                yield node.lineno, path[1]


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    value = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _is_import_by_name(node: ast.Constant | ast.JoinedStr) -> bool:
    text = _text(node)
    return text.startswith("red_lightning.") and " " not in text


def violations(package: Path) -> list[str]:
    """Each import against the arrows, as ``file:line what``."""
    found = []
    for file in sorted(package.rglob("*.py")):
        part = file.relative_to(package).parts[0].removesuffix(".py")
        for line, other in imports(file):
            if (package / other).exists() or (package / f"{other}.py").exists():
                if part not in LEVEL:
                    found.append(f"{file}:{line} {part} has no level")
                elif other != part and not (LEVEL[other] < LEVEL[part] or {part, other} == LEVELS[0]):
                    found.append(f"{file}:{line} {part} imports {other}")
    return found


def test_imports_follow_the_arrows() -> None:
    assert violations(PACKAGE) == []


def test_a_violation_names_file_and_line(tmp_path: Path) -> None:
    for folder in ("backbones", "tasks", "cli", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "backbones/a.py").write_text("import torch\n\ndef f():\n    from red_lightning.tasks import base\n")
    (tmp_path / "tasks/b.py").write_text("from red_lightning import backbones, data\n")
    (tmp_path / "data/c.py").write_text("import importlib\n\nimportlib.import_module('red_lightning.cli.score')\n")
    assert violations(tmp_path) == [
        f"{tmp_path}/backbones/a.py:4 backbones imports tasks",
        f"{tmp_path}/data/c.py:3 data imports cli",
    ]


def test_every_part_has_a_place() -> None:
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py"}
    parts |= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert parts == set(LEVEL)


def test_files_stay_small_and_folders_flat() -> None:
    for file in PACKAGE.rglob("*.py"):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert lines <= 260, f"{file} has {lines} lines"
        assert len(file.relative_to(PACKAGE).parts) <= 2, f"{file} lies too deep"
        assert file.stem not in ("utils", "util", "helpers", "common", "misc"), f"{file} says nothing by its name"


def test_no_file_name_occurs_twice() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    twice = {a for a in files for b in files if a != b and a.name == b.name}
    assert not twice, "rename these: " + ", ".join(sorted(map(str, twice)))
