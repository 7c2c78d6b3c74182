"""Custom methods, tasks and data modules: what an adapter records of them, and when they are imported.

A record may have been downloaded, so the class that it names is imported only with consent: the option ``--trust``, an
argument ``trust``, or an entry point of the group ``red_lightning.extensions`` that an installed package registers.
Consent is to a package (``my_package``) or a part of one (``my_package.methods``), compared name by name.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from red_lightning.errors import UsageError, first_line, nearest
from red_lightning.methods import Method
from red_lightning.methods.options import options_of

GROUP = "red_lightning.extensions"
"""The entry points by which an installed package allows the import of its classes."""

LONGEST_PATH = 300  # characters


def is_own(klass: type) -> bool:
    """Whether a class is a user's, and not the package's."""
    return klass.__module__.partition(".")[0] != "red_lightning"


def import_path(klass: type) -> str:
    """The import path of a class, such as ``my_package.methods.Mine``."""
    return f"{klass.__module__}.{klass.__qualname__}"


def shipped_name(klass: type) -> str:
    """The name of the package's class that a class is or extends; its own name if it extends none that can be used."""
    usable = (each.__name__ for each in klass.__mro__ if not is_own(each) and not inspect.isabstract(each))
    return next(usable, klass.__name__)


def own_parts(method: Method, task: type, data: Any = None) -> dict[str, Any]:
    """What a record says of a user's own classes: nothing where all are the package's.

    Args:
        method: What was learned.
        task: The class of the task.
        data: The data module, if it is known.
    """
    found = {"method": type(method), "task": task, **({"data": type(data)} if data is not None else {})}
    classes = {part: import_path(klass) for part, klass in found.items() if is_own(klass)}
    tokens = {"virtual_tokens": method.virtual_tokens} if "method" in classes else {}
    return {**({"classes": classes} if classes else {}), **tokens}


def wrong_classes(classes: Mapping[str, Any]) -> str | None:
    """What is wrong with the ``classes`` of a record, in words; None if nothing is."""
    for part, path in classes.items():
        if not isinstance(path, str) or len(path) > LONGEST_PATH or not path.isprintable() or "." not in path:
            return f"the class of the {part[:40]!r} in edits.json is no import path such as my_package.module.Name"
    return None


def own_path(record: Mapping[str, Any], part: str) -> str | None:
    """The import path of a user's own class in a record; None if the class is the package's.

    Args:
        record: The contents of ``edits.json``.
        part: ``method``, ``task`` or ``data``.
    """
    path = (record.get("classes") or {}).get(part)
    return None if path is None or path.partition(".")[0] == "red_lightning" else path


def trust_options(record: Mapping[str, Any]) -> list[str]:
    """What ``--trust`` must name before a record's method is imported; empty for a method of the package."""
    path = own_path(record, "method")
    return [path.partition(".")[0]] if path else []


def own_class(record: Mapping[str, Any], place: str, trust: Sequence[str] | str = ()) -> type[Method] | None:
    """The class of a record's method, if it is a user's own.

    Args:
        record: The contents of ``edits.json``.
        place: The file that it is from, for complaints.
        trust: Packages, or parts of packages, that may be imported.

    Raises:
        UsageError: Nobody has consented to import it, or it cannot be imported, or it is no method.
    """
    path = own_path(record, "method")
    if path is None:
        return None
    top = path.partition(".")[0]
    if not is_trusted(path, trust):
        raise UsageError(
            f"'{place}' was made with the method '{path}', which is not part of red_lightning; if you trust its code, "
            f"give --trust {top} (in Python trust=['{top}'])"
        )
    return import_class(path, Method, "method", f"'{place}'")


def is_trusted(path: str, trust: Sequence[str] | str = ()) -> bool:
    """Return whether a class may be imported: because of ``trust`` or a registered package."""
    return any(_covers(name, path) for name in (*_named(trust), *registered()))


def registered() -> list[str]:
    """The packages that installed packages register to be imported: their own, and never a part of Python itself."""
    names = [entry.value.partition(":")[0].strip() for entry in entry_points(group=GROUP)]
    return [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def import_class(path: str, kind: Any, word: str, place: str, functions: bool = False) -> Any:
    """Import a class of which the user has said that it may be imported.

    Args:
        path: Its import path.
        kind: What it must be a subclass of.
        word: The same in a word, such as ``method``.
        place: What names it, for complaints.
        functions: Allow a function too, which may return an object of the class.

    Raises:
        UsageError: It cannot be imported, or is something else.
    """
    said = f"{place} names the {word} '{path}', but"
    names = path.split(".")
    if not all(name.isidentifier() for name in names) or len(names) < 2:
        inside = "it is defined inside a function; move it to the top of its module" if "<locals>" in path else ""
        raise UsageError(f"{said} {inside or 'that is no import path such as my_package.module.Name'}")
    module, rest = _import_module(names, said)
    found: Any = module
    for name in rest:
        holder, found = found, getattr(found, name, None)
        if found is None:
            where = getattr(holder, "__name__", path)
            known = _names_in(holder, kind)
            advice = nearest(name, known) if known else f"it holds no {word}"
            raise UsageError(f"{said} '{where}' has no '{name}': {advice}")
    if functions and inspect.isroutine(found):
        return found
    if not inspect.isclass(found) or not issubclass(found, kind):
        base = "red_lightning.Method" if kind is Method else kind.__name__
        raise UsageError(f"{said} that is no {word}: a {word} is a subclass of {base}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"{said} that class does not define {', '.join(missing)}")
    return found


def rebuilt(klass: type[Method], options: Mapping[str, Any], place: str) -> Method:
    """A user's own method with the options of a record.

    Raises:
        UsageError: The class no longer takes them.
    """
    try:
        return klass(**options)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"'{place}' has options that the method '{import_path(klass)}' no longer takes: {first_line(error)}; it "
            f"takes {', '.join(sorted(options_of(klass))) or 'none'}"
        ) from error


def _import_module(names: Sequence[str], said: str) -> tuple[Any, list[str]]:
    """The module that an import path begins with, and the names inside it that follow."""
    for count in range(len(names) - 1, 0, -1):
        name = ".".join(names[:count])
        try:
            return importlib.import_module(name), list(names[count:])
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{name}.".startswith(f"{missing}."):  # another module, which this one imports
                raise UsageError(f"{said} importing '{name}' fails: {first_line(error)}") from error
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            kind = type(error).__name__
            raise UsageError(f"{said} importing '{name}' fails: {kind}: {first_line(error)}") from error
    near = get_close_matches(names[0], [module.name for module in pkgutil.iter_modules()], n=1, cutoff=0.8)
    meant = f"did you mean '{near[0]}'? Else " if near else ""
    raise UsageError(f"{said} there is no module '{names[0]}': {meant}install it, or run from the folder that holds it")


def _covers(trusted: str, path: str) -> bool:
    """Whether consent to a package covers a class: ``my`` does not cover ``my_evil.Name``."""
    parts = trusted.split(".")
    return bool(trusted) and path.split(".")[: len(parts)] == parts


def _named(trust: Sequence[str] | str) -> list[str]:
    return [trust] if isinstance(trust, str) else [str(name) for name in trust]


def _names_in(holder: Any, kind: Any) -> list[str]:
    """What an import path may go on with: the classes of a kind in a module or class, and a package's modules."""
    if not inspect.ismodule(holder) and not inspect.isclass(holder):
        return []
    inside = [module.name for module in pkgutil.iter_modules(getattr(holder, "__path__", []))]
    return [*inside, *(name for name, value in vars(holder).items() if _is_usable(value, kind))]


def _is_usable(value: Any, kind: type) -> bool:
    return inspect.isclass(value) and issubclass(value, kind) and not inspect.isabstract(value)
