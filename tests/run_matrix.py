"""Run the fast tests in fresh environments of the lowest, locked and newest versions, and tabulate what differs.

    python tests/run_matrix.py                                    # all three, in temporary folders
    python tests/run_matrix.py lowest --folder /tmp/matrix        # keep the environment, and use it again next time
    python tests/run_matrix.py --also newest:torch==2.13.0 -- tests/methods -k red

`lowest` installs every lower bound of pyproject.toml at once, `locked` requirements.lock, `newest` what the index has.
Needs Python 3.11 or newer and nothing else. Exits with 1 if a test fails or an environment cannot be installed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import tomllib

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("lowest", "locked", "newest")
BOUND = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?.*?>=([\w.]+)")


@dataclass
class Outcome:
    """What the tests said in one environment."""

    passed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def lower_bounds(extra: str = "dev") -> list[str]:
    """Return a constraint for each lower bound of the package and of an extra, those that the extra includes too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines, waiting = list(project["dependencies"]), [extra]
    while waiting:
        for line in extras[waiting.pop()]:
            own = re.match(r"red-lightning\[(.+)\]", line)
            waiting += own[1].split(",") if own else []
            lines += [] if own else [line]
    bounds = [BOUND.match(line) for line in lines]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def constraints(name: str, also: Iterable[str]) -> list[str]:
    """Return the lines of an environment's constraints file."""
    lines = {"lowest": lower_bounds, "newest": list}.get(name)
    given = lines() if lines else (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [*given, *(line.removeprefix(f"{name}:") for line in also if line.startswith(f"{name}:"))]


def install(name: str, folder: Path, also: Iterable[str], python: str) -> Path:
    """Make an environment, unless the folder holds it already, and return its interpreter."""
    interpreter = folder / name / "bin" / "python"
    done = folder / name / "installed"
    if not done.exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder / name)], check=True)
        file = folder / f"{name}.constraints.txt"
        file.write_text("\n".join(constraints(name, also)) + "\n", encoding="utf-8")
        command = [str(interpreter), "-m", "pip", "install", "--quiet", "-c", str(file), "-e", ".[dev]"]
        subprocess.run(command, cwd=ROOT, check=True)
        done.touch()
    return interpreter


def run(name: str, interpreter: Path, folder: Path, options: list[str]) -> Outcome:
    """Run the tests in an environment."""
    report = folder / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [str(interpreter), "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if name == "lowest":  # warnings of old releases are fixed by newer ones
        command += ["-W", "default"]
        environment["PYTHONWARNINGS"] = "ignore::FutureWarning"  # in child processes
    status = subprocess.run([*command, *options], cwd=ROOT, env=environment, check=False).returncode
    outcome = read(report) if report.exists() else Outcome(failures=[f"pytest ended with {status} without a report"])
    listed = subprocess.run(
        [str(interpreter), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    outcome.versions = {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed.stdout)}
    return outcome


def read(report: Path) -> Outcome:
    """Read pytest's report in JUnit's XML."""
    outcome = Outcome()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        outcome.seconds += float(suite.get("time", 0))
        for case in suite.iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                outcome.failures.append(f"{case.get('classname')}::{case.get('name')}")
            elif case.find("skipped") is not None:
                outcome.skipped += 1
            else:
                outcome.passed += 1
    return outcome


def table(outcomes: dict[str, Outcome]) -> str:
    """Return what differs between the environments, as Markdown."""
    lines = ["| environment | passed | failed | skipped | seconds |", "|---|---|---|---|---|"]
    for name, outcome in outcomes.items():
        counts = (outcome.passed, len(outcome.failures), outcome.skipped, round(outcome.seconds))
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    lines += ["", f"| library | {' | '.join(outcomes)} |", "|---|" + "---|" * len(outcomes)]
    for library in sorted({library for outcome in outcomes.values() for library in outcome.versions}):
        versions = [outcome.versions.get(library, "") for outcome in outcomes.values()]
        if len(set(versions)) > 1 or len(versions) == 1:
            lines.append(f"| {library} | {' | '.join(versions)} |")
    failures = {test: "" for outcome in outcomes.values() for test in outcome.failures}
    if failures:
        lines += ["", "| failing test | environments |", "|---|---|"]
        for test in failures:
            where = [name for name, outcome in outcomes.items() if test in outcome.failures]
            lines.append(f"| {test.replace('|', chr(92) + '|')} | {', '.join(where)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the matrix and print its table."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, options = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="lowest|locked|newest", help="default: all three")
    parser.add_argument("--folder", type=Path, help="where environments and reports are kept; default: a temporary one")
    parser.add_argument("--also", action="append", default=[], help="another constraint, such as newest:torch==2.13.0")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environments")
    choice = parser.parse_args(own)
    for name in (*choice.names, *(line.partition(":")[0] for line in choice.also)):
        if name not in NAMES:
            parser.error(f"unknown environment '{name}': known: {', '.join(NAMES)}")
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        folder = (choice.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in choice.names or NAMES:
            try:
                interpreter = install(name, folder, choice.also, choice.python)
            except subprocess.CalledProcessError:
                outcomes[name] = Outcome(failures=["the environment cannot be installed"])
                continue
            outcomes[name] = run(name, interpreter, folder, options)
    text = table(outcomes)
    print(text)
    if "GITHUB_STEP_SUMMARY" in os.environ:
        with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as summary:
            summary.write(text + "\n")
    return int(any(outcome.failures or not outcome.passed for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
