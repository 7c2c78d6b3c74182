"""Private names of other libraries are used in ``red_lightning/compat`` alone."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import red_lightning

PACKAGE = Path(red_lightning.__file__).parent
STANDARD = {"_asdict", "_fields", "_make", "_replace", "_exit"}
"""Public names of the standard library (of namedtuple and os) that begin with an underscore."""

TEXTS = {
    "export/merged_checkpoint.py": {"_token_id"},  # a part of option names, such as eos_token_id
    "export/pushing.py": {"_name_or_path"},  # a key of config.json
    "cli/configs.py": {"_file"},  # how the keys of files end
    "cli/open_llm.py": {"_stderr"},  # a part of lm-eval's result keys
}
"""Strings that are no names of Python, by file."""

NOT_YET: set[str] = set()
"""Files that still use private names. To be emptied; the second test refuses one that uses none any more."""

OVERRIDES_NOT_YET: set[str] = set()
"""Files whose classes still override a private method. To be emptied."""

FOR_SUBCLASSES = {"_loglikelihood_tokens"}
"""Methods that a library tells its users to override: lm-eval, in its guide to models."""


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None and name not in STANDARD


def defined(tree: ast.AST) -> set[str]:
    """The names that a piece of code defines: functions, classes, variables, arguments and attributes of ``self``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            names.add(node.attr)
    return names


def is_own(value: ast.expr) -> bool:
    """Whether an attribute's owner is an object of the class that the code stands in."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_uses(code: str, of_classes: set[str], texts: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each private name that a file uses and does not define.

    Args:
        code: The file's text.
        of_classes: What the package's classes define, which their subclasses in other files may use.
        texts: Strings that are no names.
    """
    tree = ast.parse(code)
    own = defined(tree)
    pieces = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Expr)
        for part in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            names = [] if is_own(node.value) and node.attr in of_classes else [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in pieces:
            names = [] if node.value in texts else re.findall(r"(?<![\w/.)-])_[a-z]\w*", node.value)
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            paths = [*(alias.name for alias in node.names), getattr(node, "module", None) or ""]
            names = [part for path in paths for part in path.split(".")]
        line = getattr(node, "lineno", 0)
        yield from ((line, name) for name in names if is_private(name) and name not in own)


@cache
def all_uses() -> dict[str, list[str]]:
    """The private uses of each file outside ``compat``, as ``file:line: name``."""
    files = {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    classes = [n for code in files.values() for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ClassDef)]
    of_classes = {name for node in classes for name in defined(node)}
    return {
        name: [f"{name}:{line}: {use}" for line, use in sorted(private_uses(code, of_classes, TEXTS.get(name, set())))]
        for name, code in sorted(files.items())
        if not name.startswith("compat/")
    }


def test_private_names_of_other_libraries_are_used_in_compat_alone() -> None:
    found = [use for name, uses in all_uses().items() if name not in NOT_YET for use in uses]
    assert not found, "put these behind a function in red_lightning/compat, or use a public name:\n" + "\n".join(found)


def test_no_file_is_excused_for_nothing() -> None:
    uses = all_uses()
    assert not {name for name in NOT_YET if not uses.get(name)}, "take these out of NOT_YET"
    assert all(
        f'"{text}"' in (PACKAGE / name).read_text(encoding="utf-8") for name, texts in TEXTS.items() for text in texts
    )


def test_each_way_to_use_one_is_found() -> None:
    code = """
from torch.utils._pytree import tree_leaves
import torch._dynamo
from peft import _named
class Own(Base):
    def _mine(self): self._mine(), self._inherited, super()._base()
    def __init__(self): self._set = 1
def use(module, own):
    own._set, own._mine, module._hooks, module.__dict__
    getattr(module, "_read", None), f"{module}_part"
    module(_keyword=1)
    module._written = 2
    one._asdict()
"""
    found = [name for _, name in sorted(private_uses(code, {"_mine", "_set"}, set()))]
    assert sorted(found) == sorted(
        ["_pytree", "_dynamo", "_named", "_inherited", "_base", "_hooks", "_read", "_keyword", "_written"]
    )


def own_classes() -> Iterator[type]:
    """The package's classes."""
    for found in pkgutil.walk_packages(red_lightning.__path__, "red_lightning."):
        if not found.name.endswith("__main__"):
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, type) and value.__module__ == found.name:
                    yield value


def test_no_class_overrides_a_private_method_of_another_library() -> None:
    found = set()
    for kind in own_classes():
        file = kind.__module__.partition(".")[2].replace(".", "/") + ".py"
        if file.startswith("compat/") or file in OVERRIDES_NOT_YET:
            continue
        own = {name for name, value in vars(kind).items() if inspect.isroutine(value) or isinstance(value, property)}
        for base in kind.__mro__:
            if not base.__module__.startswith("red_lightning"):
                same = {name for name in own & set(vars(base)) if is_private(name)} - FOR_SUBCLASSES
                found |= {f"{file}: {kind.__name__}.{name} is {base.__name__}'s" for name in same}
    assert not found, "rename these, or put the class into red_lightning/compat:\n" + "\n".join(sorted(found))
