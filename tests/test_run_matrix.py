"""The script that runs the tests on the lowest, locked and newest versions."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.locked import pins, project_requirements

matrix = pytest.importorskip("tests.run_matrix", reason="needs Python 3.11", exc_type=ImportError)

REPORT = """<testsuites><testsuite time="12.4">
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_a" name="test_two[a|b]"><failure message="no"/></testcase>
<testcase classname="tests.test_a" name="test_three"><error message="no"/></testcase>
<testcase classname="tests.test_b" name="test_four"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    bounds = [Requirement(line) for line in matrix.lower_bounds()]
    groups = project_requirements()
    mine = ("dependencies", "evaluation", "meteor", "plots", "slurm", "tensorboard", "dev")
    expected = {one.name: one.specifier for group in mine for one in groups[group] if one.name != "red-lightning"}
    assert {bound.name for bound in bounds} == set(expected)
    for bound in bounds:
        (version,) = (part.version for part in bound.specifier if part.operator == "==")
        assert f">={version}" in {str(part) for part in expected[bound.name]}


def test_the_constraints_of_each_environment() -> None:
    also = ["newest:torch==2.13.0", "lowest:numpy==2.1.0"]
    assert matrix.constraints("newest", also) == ["torch==2.13.0"]
    assert matrix.constraints("lowest", also)[-1] == "numpy==2.1.0"
    locked = [line for line in matrix.constraints("locked", also) if line.strip() and not line.startswith("#")]
    assert len(locked) == sum(map(len, pins().values()))


def test_the_table_shows_what_differs(tmp_path: Path) -> None:
    report = tmp_path / "locked.xml"
    report.write_text(REPORT, encoding="utf-8")
    locked = matrix.read(report)
    locked.versions = {"torch": "2.13.0", "peft": "0.21.2"}
    lowest = matrix.Outcome(
        passed=2, failures=["tests.test_a::test_three"], versions={"torch": "2.4.0", "peft": "0.21.2"}
    )
    lines = matrix.table({"lowest": lowest, "locked": locked}).splitlines()
    assert "| locked | 1 | 2 | 1 | 12 |" in lines
    assert "| torch | 2.4.0 | 2.13.0 |" in lines
    assert not any("peft" in line for line in lines)
    assert lines[-2:] == [
        "| tests.test_a::test_three | lowest, locked |",
        r"| tests.test_a::test_two[a\|b] | locked |",
    ]


def test_an_unknown_environment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        matrix.main(["lowst"])
    assert "unknown environment 'lowst': known: lowest, locked, newest" in capsys.readouterr().err
