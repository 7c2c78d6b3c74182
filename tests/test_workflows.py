"""The workflows are valid, ask for little, end in time, and run what the README says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GITHUB = Path(__file__).resolve().parents[1] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_workflows_follow_githubs_schema(tmp_path: Path) -> None:
    assert len(WORKFLOWS) == 3
    checked = check("vendor.github-workflows", *WORKFLOWS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on", "run-on"), encoding="utf-8")
    assert "runs-on" in check("vendor.github-workflows", wrong).stdout


def test_dependabot_follows_githubs_schema() -> None:
    checked = check("vendor.dependabot", GITHUB / "dependabot.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_asks_for_little_and_ends(file: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            continue
        assert job["timeout-minutes"] <= 240
        if "permissions" in job:
            assert (name, job["permissions"]) == ("publish", {"id-token": "write"})
        for step in job["steps"]:
            assert "@" in step.get("uses", "@"), f"{step} has no version"
            assert "${{" not in step.get("run", ""), "a shell command must not be put together from expressions"


def test_the_workflows_install_from_the_lock_and_run_the_tests() -> None:
    runs = {
        file.stem: [
            step["run"]
            for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
            for step in job.get("steps", [])
            if "run" in step
        ]
        for file in WORKFLOWS
    }
    for line in (line for lines in runs.values() for line in lines if "pip install" in line):
        assert "-c requirements.lock" in line
    assert {"ruff check .", "ruff format --check .", "mypy", "python -m pytest"} <= set(runs["check"])
    assert "python -m pytest -n 0 -m slow" in runs["weekly"]
    for command in (GITHUB.parent / ".ci/run").read_text(encoding="utf-8").splitlines()[-3:]:
        assert command in runs["check"]
