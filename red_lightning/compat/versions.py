"""The check that the installed libraries are of versions that we support.

Two sources: the ranges are those of our own package's metadata (``pyproject.toml``), and the newest tested majors are
those of ``requirements.lock``, which ships with the package. No library is imported: only the metadata of what is
installed is read, which takes a few milliseconds.
"""

import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.version import InvalidVersion, Version

from red_lightning.errors import UsageError

NAME = "red-lightning"
PACKAGE = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
"""A line of the lock: a library and its version."""

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+) *(?:\[[^\]]*\])? *\(?([^();]*)\)?$")
"""A line of our metadata without a marker: a library and its range."""

OPERATORS = {">=": operator.ge, "<": operator.lt, "!=": operator.ne}
"""The comparisons that our ranges use. ``packaging.specifiers`` knows all, but takes 20 ms to import."""


class VersionError(UsageError, ImportError):
    """A library is older than the package supports, or a release that is known to break it."""


def check_versions() -> None:
    """Check each library that the package depends on; none when run from a source tree that is not installed.

    A library that is not installed is not reported here: importing it says so. A pre-release counts as its release.

    Raises:
        VersionError: A version is outside the range of our metadata.
    """
    tested = tested_majors()
    for name, limits in ranges():
        version = installed(name)
        if version is None:
            continue
        for symbol, limit in limits:
            if not OPERATORS[symbol](Version(version.base_version), limit):
                raise VersionError(_outside(name, limits, symbol, limit, version))
        major = tested.get(canonical(name))
        if major is not None and version.major > major:
            warnings.warn(
                f"{NAME} is tested with {name} up to major version {major}, but {version} is installed. If something "
                f'fails, install a tested release: python -m pip install "{name}<{major + 1}"',
                UserWarning,
                stacklevel=3,
            )


def ranges() -> Iterator[tuple[str, list[tuple[str, Version]]]]:
    """Yield the libraries that our metadata requires without extras, and their limits, such as ``>=`` and 2.4."""
    for line in _metadata(NAME, "Requires-Dist"):
        if ";" in line:  # an extra: whatever uses it says what it needs
            continue
        if found := REQUIREMENT.match(line):
            limits = [part.strip() for part in found[2].split(",") if part.strip()]
            yield found[1], [_limit(part) for part in limits]


def installed(name: str) -> Version | None:
    """Return a library's installed version; None if it is not installed, or if its version cannot be parsed."""
    for version in _metadata(name, "Version"):
        with suppress(InvalidVersion):
            return Version(version)
    return None


def tested_majors() -> dict[str, int]:
    """Return the newest major in the lock of each library; an empty dictionary where there is no lock."""
    places = [folder / "requirements.lock" for folder in (PACKAGE, PACKAGE.parent)]
    lock = next((place for place in places if place.is_file()), None)
    majors: dict[str, int] = {}
    if lock is not None:
        for name, version in PIN.findall(lock.read_text(encoding="utf-8")):
            majors[canonical(name)] = max(Version(version).major, majors.get(canonical(name), 0))
    return majors


def canonical(name: str) -> str:
    """Return a library's name in the form that indexes compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _limit(text: str) -> tuple[str, Version]:
    symbol = next(symbol for symbol in OPERATORS if text.startswith(symbol))
    return symbol, Version(text.removeprefix(symbol))


def _metadata(name: str, field: str) -> list[str]:
    """Return the values of a field of an installed package's metadata.

    ``Distribution.version`` and ``Distribution.requires`` parse the whole file, README included: 10 times slower.
    """
    try:
        text = distribution(name).read_text("METADATA") or ""
    except PackageNotFoundError:
        return []
    return re.findall(rf"^{field}: *(.*)", text.partition("\n\n")[0], re.MULTILINE)


def _outside(name: str, limits: list[tuple[str, Version]], symbol: str, limit: Version, version: Version) -> str:
    needs = {">=": f"{limit} or newer", "<": f"a version below {limit}", "!=": f"a version other than {limit}"}[symbol]
    accepted = ",".join(f"{symbol}{limit}" for symbol, limit in limits)
    return (
        f"{NAME} needs {name} {needs}, but {version} is installed. Install a supported version: "
        f'python -m pip install "{name}{accepted}"'
    )
