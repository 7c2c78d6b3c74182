"""The way in: help at once, one exit status per outcome."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from keyword import iskeyword
from pathlib import Path

import pytest

from red_lightning import __main__ as way_in
from red_lightning.errors import UsageError
from tests.cli.commands import REPOSITORY, command_line, environment, imported_by, run_apart

COMMANDS = {**way_in.TRAINING, **way_in.TOOLS}


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert way_in.main(args) == 0
    shown = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert f"  {name} " in shown
        assert what in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_every_command_has_a_file_and_every_file_a_command() -> None:
    names = {f"{name}_" if iskeyword(name) else name for name in way_in.TOOLS}
    for name in names:
        module = import_module(f"red_lightning.cli.{name}")
        assert hasattr(module, "main") or callable(getattr(module, name))
    shared = {"__init__", "launch", "training", "parser"}
    shared |= {"class_paths", "includes"}  # of configs
    shared |= {"missing_extras"}  # of training
    shared |= {"parameter_counts", "study_plan"}  # of study
    shared |= {"alpaca_eval", "mt_bench", "open_llm"}  # of evaluate
    files = {path.stem for path in (REPOSITORY / "red_lightning/cli").glob("*.py")}
    assert files - shared == names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        way_in.main([command, "--help"])
    assert end.value.code == 0
    assert command in capsys.readouterr().out


def test_help_is_quick() -> None:
    done = imported_by("--help")
    assert done.stderr.strip() == ""


def test_public_names_are_there() -> None:
    import red_lightning

    for name in red_lightning.__all__:
        assert getattr(red_lightning, name).__name__ == name
        assert name in dir(red_lightning)
    assert red_lightning.RED is import_module("red_lightning.methods").RED
    with pytest.raises(AttributeError, match="REDD"):
        _ = red_lightning.REDD


def test_exit_status(tmp_path: Path) -> None:
    assert run_apart(tmp_path, "--help").returncode == 0
    refused = run_apart(tmp_path, "fti")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: unknown command 'fti': did you mean 'fit'?")
    assert refused.stderr.count("\n") == 1


def _raise(error: BaseException) -> None:
    raise error


def test_status_of_each_outcome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(way_in, "_run", lambda args: _raise(KeyboardInterrupt()))
    assert way_in.main(["fit"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(way_in, "_run", lambda args: _raise(UsageError("that is wrong")))
    assert way_in.main(["fit"]) == 2
    assert capsys.readouterr().err == "error: that is wrong\n"
    monkeypatch.setattr(way_in, "_run", lambda args: None)
    assert way_in.main(["fit"]) == 0


def test_cause_of_another_error_is_the_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: list[str]) -> None:
        try:
            raise UsageError("the file is empty")
        except UsageError as error:
            raise RuntimeError("loading failed") from error

    monkeypatch.setattr(way_in, "_run", run)
    assert way_in.main(["fit"]) == 2
    assert capsys.readouterr().err == "error: the file is empty\n"


def test_faults_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_in, "_run", lambda args: _raise(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        way_in.main(["fit"])


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command_line("configs"), cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=300
    )
    os.close(writer)
    assert done.returncode == 141  # as a program that SIGPIPE ended
    assert not done.stderr


@pytest.mark.parametrize(
    ("warning", "module", "fails"),
    [
        ("FutureWarning", "transformers.generic", True),
        ("DeprecationWarning", "red_lightning.cli.fit", True),
        ("DeprecationWarning", "transformers.generic", False),
        ("UserWarning", "red_lightning.cli.fit", False),
    ],
)
def test_warnings_that_users_would_see_fail_in_child_processes(warning: str, module: str, fails: bool) -> None:
    code = f"import warnings; warnings.warn_explicit('old', {warning}, 'file.py', 1, module='{module}')"
    env = {name: value for name, value in environment().items() if name != "PYTHONWARNINGS"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == int(fails), ended.stderr


def test_the_version_and_the_short_option_of_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert way_in.main(["--version"]) == 0
    assert capsys.readouterr().out == f"red-lightning {version('red-lightning')}\n"
    assert way_in.main(["parameters", "-c", "quickstrat"]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert way_in.main(["\x1b[2Jfit"]) == 2
    assert "\x1b" not in capsys.readouterr().err
