"""jsonargparse's own complaints. Where this fails, a release has changed a wording (compat/argument_parser)."""

from typing import Literal

import pytest
from jsonargparse import ArgumentParser

from red_lightning.cli.parser import RedParser
from red_lightning.compat.argument_parser import Complaint, missing_package, read


class Way:
    """A class that an option names."""

    def __init__(self, size: int = 1, kind: Literal["a", "b"] = "a") -> None:
        if size == 7:
            raise ModuleNotFoundError("Requirement 'parcel>=2' not met")


class Outer:
    """A class with an option that names another."""

    def __init__(self, way: Way | None = None, rate: float = 0.5, layers: list[int] | None = None) -> None:
        pass


class Needing(Outer):
    """Another, whose option cannot be null."""

    def __init__(self, way: Way) -> None:
        pass


def complaint(*args: str) -> Complaint:
    """What jsonargparse says of a command line."""
    seen: list[Complaint] = []

    class Reading(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None):  # type: ignore[no-untyped-def]
            if self.exit_on_error:
                seen.append(read(message, ex))
                raise SystemExit
            return super().error(message, ex)

    parser = Reading()
    parser.add_argument("--count", type=int)
    parser.add_argument("--limit", type=int | None)
    parser.add_argument("--name", type=str, required=True)
    parser.add_subclass_arguments(Outer, "outer", required=False)
    with pytest.raises(SystemExit):
        parser.parse_args(args)
    return seen[0]


OUTER = "--outer=tests.compat.test_argument_parser.Outer"
WAY = "--outer.way=tests.compat.test_argument_parser.Way"
CASES: dict[str, tuple[list[str], str, str, tuple[str, ...]]] = {
    "value": (["--count=two"], "value", "count", ("<class 'int'>", "two")),
    "value of a class": ([OUTER, "--outer.rate=fast"], "value", "outer.rate", ("<class 'float'>", "fast")),
    "value within": ([OUTER, WAY, "--outer.way.kind=c"], "value", "outer.way.kind", ("typing.Literal['a', 'b']", "c")),
    "union": (["--limit=all"], "union", "limit", ("<class 'int'>, <class 'NoneType'>", "all")),
    "union within": ([OUTER, "--outer.layers=x"], "union", "outer.layers", ("list[int], <class 'NoneType'>", "x")),
    "class": (["--outer=Outre"], "class", "outer", ("Outre",)),
    "class within": ([OUTER, "--outer.way=Wya"], "class", "outer.way", ("Wya",)),
    "other class or null": ([OUTER, "--outer.way=collections.Counter"], "union", "outer.way", ()),
    "other class": (
        ["--outer=tests.compat.test_argument_parser.Needing", "--outer.way=collections.Counter"],
        "other class",
        "outer.way",
        ("collections.Counter", "Way"),
    ),
    "option": (["--conut=1"], "option", "", ("--conut",)),
    "option of a class": (
        [OUTER, "--outer.rat=1"],
        "option of a class",
        "outer",
        ("tests.compat.test_argument_parser.Outer", "rat"),
    ),
    "required": (["--count=1"], "required", "", ("name",)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_wordings_are_those_of_jsonargparse(name: str) -> None:
    args, kind, place, found = CASES[name]
    seen = complaint(*args)
    assert (seen.kind, seen.place) == (kind, place), seen
    assert not found or seen.found == found
    assert "NestedArg" not in "".join(seen.found)


def test_a_package_that_a_class_lacks() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Way, "way", required=False)
    given = parser.parse_args(["--way=tests.compat.test_argument_parser.Way", "--way.size=7"])
    with pytest.raises(Exception, match="parcel") as caught:
        parser.instantiate(given)
    assert missing_package(caught.value) in (None, ("Way", "parcel>=2"))
    text = (
        "Problem with given class_path 'lightning.pytorch.loggers.WandbLogger':\n  Requirement 'wandb>=0.12' not met."
    )
    assert missing_package(ValueError(text)) == ("WandbLogger", "wandb>=0.12")
    assert missing_package(ValueError("something else")) is None


def test_the_options_of_a_parser_have_a_public_name() -> None:
    parser = RedParser()
    parser.add_argument("--count", type=int)
    parser.add_class_arguments(Way, "way")
    assert {"--count", "--way.size", "--way.kind", "--help"} <= set(parser.options())
