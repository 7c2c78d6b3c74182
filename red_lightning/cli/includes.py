"""The parts that a config includes, such as ``method: methods/red.yaml``: found, checked and written into it.

A part is looked up beside the file that includes it, then among the configs that ship. jsonargparse looks beside the
file alone, so a config gets its parts before it is parsed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from red_lightning.cli import configs
from red_lightning.cli.class_paths import KINDS, require_class
from red_lightning.errors import UsageError, closest, first_line

ENDINGS = (".yaml", ".yml")

PARTS = (*KINDS, "trainer", "run", "checkpoint", "finite_steps", "model.decoding", "model.backbone_options")
"""The settings, by full name, whose value may be the name of a file with the value."""

EXPERIMENT = ("model", "data", "trainer", "seed_everything")
"""The keys of a whole experiment, which is no part of another."""


def parts_near(beside: Path) -> list[str]:
    """The parts that could have been meant: those that ship, and the files beside the including one."""
    ships = [path.relative_to(configs.folder()).as_posix() for path in configs.folder().glob("*/*.yaml")]
    own = [path for ending in ENDINGS for depth in ("*", "*/*") for path in beside.glob(f"{depth}{ending}")]
    return [*ships, *(path.relative_to(beside).as_posix() for path in own[:200])]


def with_parts(text: str, file: Path) -> str:
    """A config with the parts that it includes, as YAML.

    Args:
        text: What the file holds.
        file: It.

    Raises:
        UsageError: The file or a part is no YAML, does not exist, is of another kind, includes itself, or names a
            class that cannot be imported.
    """
    content = _read(text, file)
    if not isinstance(content, dict):
        return text  # which the parser refuses
    included: list[Path] = []
    whole = dict(_filled(content, file, "", (file.resolve(),), included))
    return _dumped(whole) if included else text


def part_with_parts(file: Path, key: str) -> str | None:
    """A part that the command line names, as YAML; None if it includes nothing, and can be read as it is.

    Args:
        file: The part.
        key: The option that it is given for, such as ``model.method``.

    Raises:
        UsageError: See :func:`with_parts`.
    """
    included: list[Path] = []
    content = _included(file, key, f"--{key}", (), included)
    return _dumped(content) if len(included) > 1 else None


class _Dumper(yaml.SafeDumper):
    """Writes every text in quotes: the parser reads more numbers than PyYAML does, such as 1e-2."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def _dumped(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, default_flow_style=True, width=10**9)


def _filled(
    content: Mapping[Any, Any], file: Path, prefix: str, chain: tuple[Path, ...], included: list[Path]
) -> Iterator[tuple[Any, Any]]:
    """The items of a mapping, with the parts that they include."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in PARTS:
            value = _value(value, name, file, chain, included)
        elif key == "init_args" and isinstance(value, dict):
            value = dict(_filled(value, file, prefix, chain, included))
        yield key, value


def _value(value: Any, name: str, file: Path, chain: tuple[Path, ...], included: list[Path]) -> Any:
    """The value of a setting that may name parts, with them."""
    if isinstance(value, list):
        return [_value(each, name, file, chain, included) for each in value]
    if isinstance(value, str) and value.endswith(ENDINGS) and "${" not in value:
        path = configs.find_part(value, file.parent)
        if path is None:
            known = parts_near(file.parent)
            meant = closest(value, known) or next((each for each in known if Path(each).name == Path(value).name), None)
            near = f"did you mean '{meant}'?" if meant else f"parts that ship: {', '.join(sorted(known)[:40])}"
            raise UsageError(
                f"{name} in '{file}' includes '{value}', which exists neither beside that file nor among the shipped "
                f"configs: {near}"
            )
        return _included(path, name, f"{name} in '{file}'", chain, included)
    require_class(value, name, f"{name} in '{file}'")
    return dict(_filled(value, file, f"{name}.", chain, included)) if isinstance(value, dict) else value


def _included(path: Path, name: str, place: str, chain: tuple[Path, ...], included: list[Path]) -> Any:
    """What a part holds, with the parts that it includes."""
    if path.resolve() in chain:
        loop = " includes ".join(f"'{each.name}'" for each in (*chain, path))
        raise UsageError(f"{place} includes itself: {loop}; remove one of these includes")
    included.append(path)
    try:
        content = _read(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} includes '{path}', which cannot be read: {first_line(error)}") from error
    chain = (*chain, path.resolve())
    if isinstance(content, list):
        return [_value(each, name, path, chain, included) for each in content]
    if not isinstance(content, dict):
        raise UsageError(f"{place} includes '{path}', which must hold settings by name, such as class_path: NAME")
    if found := [each for each in EXPERIMENT if each in content]:
        word = KINDS[name].word if name in KINDS else f"part for {name}"
        raise UsageError(f"{place} includes '{path}', which is no {word}: it has the key '{found[0]}' of an experiment")
    require_class(content, name, f"'{path}', which {place} includes,")
    return dict(_filled(content, path, f"{name}.", chain, included))


def _read(text: str, file: Path) -> Any:
    """The contents of a YAML file, read as the parser reads them."""
    try:
        return get_loader("yaml")(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {min(mark.line + 1, len(text.splitlines()))} of '{file}'" if mark else f"'{file}'"
        problem = getattr(error, "problem", None) or first_line(error)
        raise UsageError(f"{where} is no YAML: {problem}") from error


def checked(args: Sequence[str]) -> list[str]:
    """A command line whose parts are written out where they include others, and whose classes can be imported.

    Args:
        args: It, with the paths of its files.

    Raises:
        UsageError: See :func:`with_parts`.
    """
    result: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if not equals and result and result[-1].startswith("--") and "=" not in result[-1] and arg[:1] != "-":
            option, value = result[-1], arg
        parts = [part for part in option.removeprefix("--").split(".") if part not in ("init_args", "class_path")]
        name = ".".join(parts)
        if option.startswith("--") and value and name in PARTS:
            if value.endswith(ENDINGS) and Path(value).is_file():
                if written := part_with_parts(Path(value), name):
                    arg = f"{option}={written}" if equals else written
            else:
                require_class(value, name, option)
        result.append(arg)
    return result
