"""``configs``: list the experiments and studies that ship with the package, and copy one to start from."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from red_lightning.errors import UsageError, nearest

INCLUDE = re.compile(r"^(?P<space> *)(?P<key>[\w-]+): (?P<file>[\w./-]+\.ya?ml)(?: *#.*)?$", re.MULTILINE)


def folder() -> Path:
    """Where the experiments are: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(place for place in (package / "configs", package.parent / "configs") if place.is_dir())


def experiments() -> dict[str, Path]:
    """The runnable experiments by name (the parts that they include are in sub-folders)."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def studies() -> dict[str, Path]:
    """The study files that ship, by name: one for each table of the paper, and one to start from."""
    return {path.stem: path for part in ("paper", "studies") for path in sorted((folder() / part).glob("*.yaml"))}


def find_part(name: str, beside: Path) -> Path | None:
    """The file that an include means: beside the file that includes it, or among the configs that ship.

    Args:
        name: What the including file says.
        beside: The folder of that file.
    """
    written = Path(name).expanduser()
    places = [beside / written, folder() / written, folder().parent / written]
    return next((place for place in places if place.is_file()), None)


def find(name: str) -> Path:
    """The file that a user means by ``--config``: a path, or the name of a shipped experiment.

    Raises:
        UsageError: There is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml")
    if stem not in experiments() or path.parent not in (Path(), Path("configs")):
        raise UsageError(
            f"the config '{name}' is neither a file nor a shipped experiment: {nearest(stem, experiments())}"
        )
    return experiments()[stem]


def with_files(args: Sequence[str]) -> list[str]:
    """A command line in which shipped files are named by their paths, from wherever it is run.

    Args:
        args: ``--config`` may name a shipped experiment, and any option a shipped part such as ``methods/red.yaml``.

    Raises:
        UsageError: An option names a YAML file that does not exist.
    """
    result: list[str] = []
    for arg in args:
        if result and result[-1] in ("--config", "-c"):
            result[-1] = f"--config={find(arg)}"
        elif arg.startswith("--config="):
            result.append(f"--config={find(arg.removeprefix('--config='))}")
        else:
            option, equals, value = arg.rpartition("=")
            result.append(f"{option}{equals}{_part(value)}" if value.endswith((".yaml", ".yml")) else arg)
    return result


def _part(name: str) -> str:
    """The path of a YAML file: as given, or in the shipped configs."""
    path = find_part(name, Path())
    if path is None:
        parts = [str(part.relative_to(folder())) for part in folder().glob("*/*.yaml")]
        raise UsageError(
            f"the file '{name}' does not exist, neither here nor among the shipped parts: {nearest(name, parts)}"
        )
    return name if path == Path(name) else str(path)


def about(path: Path) -> str:
    """What an experiment is, by its first line."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def self_contained(path: Path) -> str:
    """The text of an experiment with the parts that it includes written out."""

    def written_out(match: "re.Match[str]") -> str:
        part = find_part(match["file"], path.parent)
        if part is None or match["key"].endswith("_file"):
            return match[0]
        text = self_contained(part).rstrip()
        return f"{match['space']}{match['key']}:\n" + indent(text, match["space"] + "  ")

    return INCLUDE.sub(written_out, path.read_text(encoding="utf-8"))


def configs(copy: str | None = None, to: Path | None = None) -> None:
    """List the experiments and studies that ship with the package, or copy one to start from.

    Args:
        copy: Name of the experiment or study to copy; studies/NAME is a study that is called as an experiment is.
        to: The file to write; by default the same name in this folder. An existing file is never overwritten.
    """
    if copy is None:
        width = max(len(name) for name in experiments())
        for name, path in experiments().items():
            print(f"{name:<{width}}  {about(path)}")
        print("\nrun one:  python -m red_lightning fit --config NAME")
        print("copy one: python -m red_lightning configs --copy NAME")
        print(f"studies:  python -m red_lightning study run NAME ({', '.join(studies())})")
        return
    plans = {f"studies/{name}": path for name, path in studies().items()}
    known = {**studies(), **plans, **experiments()}
    if copy not in known:
        raise UsageError(f"unknown experiment or study '{copy}': {nearest(copy, {**studies(), **experiments()})}")
    target = to or Path(f"{Path(copy).name}.yaml")
    if target.exists():
        raise UsageError(f"'{target}' exists already; give another file with --to")
    try:
        target.write_text(self_contained(known[copy]), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from error
    command = "fit --config" if copy in experiments() else "study run"
    print(f"wrote {target}; run it with: python -m red_lightning {command} {target}")
