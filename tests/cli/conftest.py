"""The command line in this process: faster than a child process, and it leaves no trace behind."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from red_lightning.__main__ import main
from tests.cli.commands import FIT, environment, write_experiment


@dataclass
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence of a refusal."""
        assert self.status == 2, self.out + self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip().endswith(lines[0]), self.err
        assert "Traceback" not in self.out + self.err
        return lines[0].removeprefix("error: ")


CLI = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CLI:
    """Runs a command line with the test's folder as the working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        with patch.dict(os.environ, environment(), clear=True), warnings.catch_warnings():
            try:
                status = main(list(args))
            except SystemExit as end:  # --help and --print_config
                status = int(end.code or 0)
        written = capsys.readouterr()
        return Outcome(status, written.out, written.err)

    return run


@pytest.fixture
def experiment(tmp_path: Path, gpt2_folder: Path) -> Path:
    """An experiment on a tiny GPT-2 in the working folder, called ``small.yaml``."""
    return write_experiment(tmp_path, gpt2_folder)


@pytest.fixture
def fitted(cli: CLI, experiment: Path) -> Outcome:
    """A finished run called ``first``."""
    outcome = cli(*FIT, "--run.name", "first")
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture
def run(fitted: Outcome, tmp_path: Path) -> Path:
    """Its folder."""
    return tmp_path / "runs/first"
