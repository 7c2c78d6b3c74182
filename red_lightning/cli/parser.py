"""The argument parser, whose complaints are one sentence each: it names the wrong thing and the way out."""

import importlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args, get_origin

from jsonargparse import auto_cli
from lightning.pytorch.cli import LightningArgumentParser

import red_lightning.data
import red_lightning.methods
import red_lightning.quickstart
import red_lightning.tasks
from red_lightning.errors import UsageError, closest, nearest, usage_error_in

GROUPS = {
    "model": [red_lightning.tasks],
    "data": [red_lightning.data, red_lightning.quickstart],
    "method": [red_lightning.methods],
}
"""Where the classes are that an option of this name may be."""

REPLICAS = (
    "model.method.replicas was removed; make the seeds or settings an axis of a study, and run several of its cells at "
    "once: study run FILE --jobs N"
)
REMOVED = {
    "model.method has no option 'replicas'": REPLICAS,
    "unknown option '--together'": "--together was removed; several cells run at once with: study run FILE --jobs N",
}
"""How the complaint about an option of 0.1.0 begins -> what to say instead."""

SINGLE_REPLICA = re.compile(r"(class_path: red_lightning(?:\.\w+)*\.RED\n(?: .*\n)*?) +replicas: 1\n")
"""What 0.1.0 wrote into the ``config.yaml`` of each ordinary run of RED; without its last line, it means the same."""

INNERMOST = re.compile(r"Subtypes: \[(.+)\]\s+Errors:(?:(?!Subtypes:)[\s\S])*?Given value: (.*)")
"""What a value may be and what it is, in the innermost of jsonargparse's nested complaints."""


class RedParser(LightningArgumentParser):
    """LightningCLI's parser with complaints that a user can act on."""

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Parse, where jsonargparse hands the null of a nested option on as the text ``None``."""
        if args is not None and not self.exit_on_error:
            args = [f"{arg[:-4]}null" if arg.endswith("=None") else arg for arg in args]
        return super().parse_args(args, *rest, **kwargs)

    def parse_string(self, content: str, *rest: Any, **kwargs: Any) -> Any:
        """Parse a config, also that of a run of 0.1.0."""
        return super().parse_string(SINGLE_REPLICA.sub(r"\1", content), *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Complain.

        Raises:
            UsageError: In place of the usage text and jsonargparse's message.
        """
        if not self.exit_on_error:  # an attempt of the outer parser, which complains itself
            super().error(message, ex)
        cause = usage_error_in(ex) if ex else None
        sentence = explain(message, self._options())
        sentence = next((instead for begin, instead in REMOVED.items() if sentence.startswith(begin)), sentence)
        raise cause or UsageError(sentence) from ex

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def run(function: Callable[..., None], args: Sequence[str], command: str | None = None) -> None:
    """Build a command line from a typed function, and call it.

    Args:
        function: The function; its docstring is the help.
        args: The command line, without the command's name. A first argument that is no option is the value of the
            function's first parameter; an option that takes a list may be followed by several values.
        command: How the command is called; None for the function's name.
    """
    parameters = inspect.signature(function).parameters
    if args and not args[0].startswith("-"):
        args = [f"--{next(iter(parameters))}={args[0]}", *args[1:]]
    for name, parameter in parameters.items():
        if list in [get_origin(kind) for kind in (parameter.annotation, *get_args(parameter.annotation))]:
            args = gathered(args, f"--{name}")
    prog = f"python -m red_lightning {command or function.__name__.removesuffix('_')}"  # that of import is import_
    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    auto_cli(function, args=list(args), as_positional=False, parser_class=RedParser, prog=prog, description=about)


def gathered(args: Sequence[str], option: str) -> list[str]:
    """A command line in which the values of an option are one list: ``--x a b`` and ``--x=a --x=b`` as ``--x=[a,b]``.

    Args:
        args: The command line.
        option: The option, which takes a list; a single value may be one already, as YAML.

    Raises:
        UsageError: The option has no value.
    """
    others: list[str] = []
    values: list[str] = []
    taking = given = False
    for arg in args:
        name, equals, value = arg.partition("=")
        if name == option:
            given, taking = True, not equals
            values += [value] if value else []
        elif taking and not arg.startswith("-"):
            values.append(arg)
        else:
            taking = False
            others.append(arg)
    if not given:
        return others
    if not any(value.strip() for value in values):
        raise UsageError(f"{option} names nothing; give one or more")
    whole = values[0] if len(values) == 1 and (values[0].startswith("[") or values[0] == "null") else json.dumps(values)
    return [*others, f"{option}={whole}"]


def explain(message: str, options: list[str]) -> str:
    """Turn a complaint of jsonargparse into one sentence.

    Args:
        message: Its message.
        options: The options that the command line knows.
    """
    keys = [key.removeprefix("fit.") for key in re.findall(r'Parser key "([^"]+)"', message)]
    place = ".".join(keys)
    if names := re.findall(r"Expected a dot import path string: (\S+)", message):
        return _unknown_class(names[-1], place, keys[-1] if keys else "")
    if found := re.search(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted", message):
        known = _parameters(found[1])
        return f"{place} has no option '{found[2]}': {nearest(found[2], known)}"
    if found := re.search(r"Expected (?:a|an) (.+?)\. Got value: (.*)", message):
        return f"{place} cannot be '{found[2]}': it takes {_type(found[1])}"
    if found := re.search(r"class_path '([^']+)':\s+unrecognized arguments: --([\w.]+)", message):
        name = found[1].rsplit(".", 1)[-1]
        return f"{place} has no option '{found[2]}'; --{place}.help {name} lists those that exist"
    if found := INNERMOST.search(message):
        kinds = [_type(kind) for kind in re.findall(r"[\w.]+\[[^\]]*\]|<class '[^']+'>|\w+", found[1])]
        return f"{place} cannot be '{found[2]}': it takes {' or '.join(kinds)}"
    if message.startswith("unrecognized arguments: "):
        option = message.split()[2].split("=")[0]
        if not option.startswith("-"):
            return f"'{option}' belongs to no option; a model comes right after the command, all else after its option"
        near = closest(option, options)
        return f"unknown option '{option}'" + (f": did you mean '{near}'?" if near else "; see --help")
    if found := re.match(r"the following arguments are required: (.+)", message):
        missing = found[1].split(", ")
        if any(name.endswith((".model", ".data")) for name in missing):  # of a training command
            return "no experiment is given: add --config NAME (python -m red_lightning configs lists those that ship)"
        return "give " + " and ".join(f"--{name}" for name in missing)
    if found := re.search(r"Interpolation key '([^']+)' not found", message):
        return f"the config refers to '{found[1]}', which is not set"
    return " ".join(message.split())[:500]


def _unknown_class(name: str, place: str, group: str) -> str:
    if group not in GROUPS:
        return f"unknown class '{name}' for {place}: give its full import path, such as package.module.{name}"
    public = [getattr(module, name) for module in GROUPS[group] for name in module.__all__]
    known = [klass.__name__ for klass in public if inspect.isclass(klass) and not _is_base(klass)]
    kind = {"model": "task", "data": "data module", "method": "method"}[group]
    return f"unknown {kind} '{name}': {nearest(name, known)}; or give the import path of your own"


def _is_base(klass: type) -> bool:
    return inspect.isabstract(klass) or klass.__name__ in (
        "BackboneTask",
        "ClassificationDataModule",
        "ClassifierTask",
        "ConversationsDataModule",
        "PairsDataModule",
        "RowsDataModule",
        "RepresentationEditor",
    )


def _parameters(class_path: str) -> set[str]:
    """The options of a class: the parameters of its ``__init__`` and of those that it passes options on to."""
    module, name = class_path.rsplit(".", 1)
    klass: Any = getattr(importlib.import_module(module), name)
    inits = [
        c.__init__ for c in klass.__mro__ if c.__module__.split(".")[0] == "red_lightning" and "__init__" in vars(c)
    ]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for init in inits for p in inspect.signature(init).parameters.values() if p.kind in kinds} - {"self"}


def _type(text: str) -> str:
    """``<class 'float'>`` and ``typing.Literal['a', 'b']`` as words."""
    if found := re.search(r"Literal\[(.+)\]", text):
        return f"one of {found[1]}".replace("'", "")
    names = {
        "NoneType": "null",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "a text",
        "list": "a list such as '[a, b]'",
    }
    if text.startswith("list["):
        return "a list such as '[a, b]'"
    return names.get(text.removeprefix("<class '").removesuffix("'>"), text)
