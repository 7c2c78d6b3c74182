"""The argument parser, whose complaints are one sentence each: it names the wrong thing and the way out."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from jsonargparse import auto_cli
from lightning.pytorch.cli import LightningArgumentParser

import red_lightning.data
import red_lightning.methods
import red_lightning.quickstart
import red_lightning.tasks
from red_lightning.cli.includes import with_parts
from red_lightning.compat.argument_parser import read
from red_lightning.errors import UsageError, closest, nearest, usage_error_in
from red_lightning.methods.options import options_of

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
PAUSES = "was removed: the package openai sets the pauses between requests; set --judge.attempts and --judge.timeout"
REMOVED = {
    "unknown option '--judge.backoff": f"--judge.backoff {PAUSES}",
    "unknown option '--judge.patience": f"--judge.patience {PAUSES}",
    "model.method has no option 'replicas'": REPLICAS,
    "unknown option '--together'": "--together was removed; several cells run at once with: study run FILE --jobs N",
}
"""How the complaint about an option of 0.1.0 begins -> what to say instead."""

SINGLE_REPLICA = re.compile(r"(class_path: red_lightning(?:\.\w+)*\.RED\n(?: .*\n)*?) +replicas: 1\n")
"""What 0.1.0 wrote into the ``config.yaml`` of each ordinary run of RED; without its last line, it means the same."""


class RedParser(LightningArgumentParser):
    """LightningCLI's parser with errors that a user can act on.

    Args:
        args: Those of the parser.
        examples: Command lines, without ``python -m red_lightning``, that the help shows at its end.
        kwargs: Those of the parser.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help, with its examples line by line: argparse would join them to a paragraph."""
        shown = "".join(f"  python -m red_lightning {example}\n" for example in self.examples)
        return super().format_help(*args, **kwargs) + (f"\nexamples:\n{shown}" if shown else "")

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Parse, where jsonargparse hands the null of a nested option on as the text ``None``."""
        if args is not None and not self.exit_on_error:
            args = [f"{arg[:-4]}null" if arg.endswith("=None") else arg for arg in args]
        return super().parse_args(args, *rest, **kwargs)

    def parse_string(self, content: str, path: Any = "", **kwargs: Any) -> Any:
        """Parse a config, also that of a run of 0.1.0, with its parts: those that ship are found from any folder."""
        if path:  # whose folder is the current one meanwhile
            content = with_parts(content, Path(path).absolute())
        content = SINGLE_REPLICA.sub(r"\1", content)
        return super().parse_string(content, path, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Complain.

        Raises:
            UsageError: In place of the usage text and jsonargparse's message.
        """
        if not self.exit_on_error:  # an attempt of the outer parser, which complains itself
            super().error(message, ex)
        cause = usage_error_in(ex) if ex else None
        sentence = explain(message, self.options(), ex)
        sentence = next((instead for begin, instead in REMOVED.items() if sentence.startswith(begin)), sentence)
        raise cause or UsageError(sentence) from ex

    def options(self) -> list[str]:
        """The options, as on the command line; those of a task, a data module or a method are not among them."""
        return [f"--{key}" for key in (*self.get_defaults().keys(), "help", "print_config")]


def run(function: Callable[..., None], args: Sequence[str], command: str | None = None) -> None:
    """Build a command line from a typed function, and call it.

    Args:
        function: The function. Its docstring is the help; indented lines before ``Args`` are examples.
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
    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0].split("\n")
    auto_cli(
        function,
        args=list(args),
        as_positional=False,
        parser_class=RedParser,
        prog=prog,
        description="\n".join(line for line in about if not line.startswith("    ")).rstrip(":\n"),
        examples=[line.strip() for line in about if line.startswith("    ")],
    )


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


def explain(message: str, options: list[str], error: Exception | None = None) -> str:
    """Turn a complaint of jsonargparse into one sentence; one in words that are not known is shown as it is.

    Args:
        message: Its message.
        options: The options that the command line knows.
        error: The exception that the message was made of.
    """
    complaint = read(message, error)
    place, found = complaint.place, complaint.found
    match complaint.kind:
        case "class":
            return _unknown_class(found[0], place, complaint.keys[-1])
        case "option of a class":
            return _unknown_option(found[0], found[1], place)
        case "value":
            return f"{place} cannot be '{found[1]}': it takes {_type(found[0])}"
        case "other class":
            return f"{place} cannot be '{found[0]}': it takes a {found[1]}"
        case "union":
            kinds = [_type(kind) for kind in re.findall(r"[\w.]+\[[^\]]*\]|<class '[^']+'>|\w+", found[0])]
            return f"{place} cannot be '{found[1]}': it takes {' or '.join(kinds)}"
        case "option":
            return _unknown(found[0], options)
        case "required":
            return _missing(found[0].split(", "))
        case "reference":
            return f"the config refers to '{found[0]}', which is not set"
    text = complaint.text or "the command line could not be read"
    return f"{place}: {text}" if place and "Parser key" not in text else text


def _unknown(option: str, options: list[str]) -> str:
    if not option.startswith("-"):
        return f"'{option}' belongs to no option; a model comes right after the command, all else after its option"
    near = closest(option, options)
    return f"unknown option '{option}'" + (f": did you mean '{near}'?" if near else "; see --help")


def _missing(options: list[str]) -> str:
    if any(name.endswith((".model", ".data")) for name in options):  # of a training command
        return "no experiment is given: add --config NAME (python -m red_lightning configs lists those that ship)"
    return "give " + " and ".join(f"--{name}" for name in options)


def _unknown_option(class_path: str, option: str, place: str) -> str:
    known = set() if "." in option else _options_of(class_path)  # those of a group are not looked into
    name = class_path.rsplit(".", 1)[-1]
    listed = f": {nearest(option, known)}" if known else f"; --{place}.help {name} lists those that exist"
    return f"{place} has no option '{option}'{listed}"


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


def _options_of(class_path: str) -> set[str]:
    """The options of a class, which jsonargparse has imported; none of one of Lightning or torch, which have a help."""
    module, _, name = class_path.rpartition(".")
    klass = getattr(sys.modules.get(module), name, None)
    known = inspect.isclass(klass) and module.partition(".")[0] not in ("lightning", "torch")
    return options_of(klass) if known else set()  # type: ignore[arg-type]


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
