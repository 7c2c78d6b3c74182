"""Versions out of range are met at import by one sentence, from stubbed metadata."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from red_lightning.compat import versions
from red_lightning.compat.versions import VersionError, check_versions
from tests.cli.commands import REPOSITORY, command_line, environment
from tests.locked import project_requirements

OLD = (
    "red-lightning needs transformers 5.0 or newer, but 4.50.0 is installed. Install a supported version: "
    'python -m pip install "transformers>=5.0"'
)
OURS = ["transformers>=5.0", "torch<3,>=2.4", "datasets!=4.1.0,>=4.0", 'bitsandbytes>=0.46 ; extra == "quantization"']


def install(folder: Path, name: str, version: str, requires: Iterable[str] = ()) -> None:
    """Lay down what an index's installer would: the metadata of a distribution, without its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n\nA text\nVersion: 99\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose metadata Python finds before what is installed; ours is in it."""
    install(tmp_path, "red-lightning", "0.1.0", OURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name, version, told",
    [
        ("transformers", "4.50.0", OLD),
        ("torch", "2.3.1", "needs torch 2.4 or newer, but 2.3.1 is installed"),
        ("torch", "3.0.0", 'needs torch a version below 3, but 3.0.0 is installed. Install a supported version: '
         'python -m pip install "torch<3,>=2.4"'),
        ("datasets", "4.1.0", "needs datasets a version other than 4.1.0, but 4.1.0 is installed"),
    ],
)  # fmt: skip
def test_a_version_outside_the_range_is_named_with_the_range(site: Path, name: str, version: str, told: str) -> None:
    install(site, name, version)
    with pytest.raises(VersionError) as error:
        check_versions()
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ImportError)


@pytest.mark.parametrize("version", ["5.0.0", "5.0.0rc2", "5.0.0.dev0", "5.24.0+local", "not a version"])
def test_a_supported_version_is_silent(site: Path, version: str, recwarn: pytest.WarningsRecorder) -> None:
    install(site, "transformers", version)
    check_versions()
    assert not recwarn.list


def test_a_newer_major_than_the_locks_is_warned_of(site: Path) -> None:
    newer = versions.tested_majors()["transformers"] + 1
    install(site, "transformers", f"{newer}.1.0")
    with pytest.warns(
        UserWarning, match=rf"transformers up to major version {newer - 1}, but {newer}\.1\.0 is"
    ) as told:
        check_versions()
    assert len(told) == 1


def test_without_metadata_and_without_a_lock_nothing_is_checked(
    site: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    install(site, "transformers", "1000.0")
    monkeypatch.setattr(versions, "PACKAGE", site)
    check_versions()
    install(site, "torch", "1.0")
    monkeypatch.setattr(versions, "NAME", "a-package-of-nobody")
    check_versions()
    assert not recwarn.list


def test_a_library_that_is_not_installed_is_left_to_its_import(site: Path) -> None:
    assert versions.installed("a-package-of-nobody") is None
    install(site, "needs-nobody", "1.0", ["a-package-of-nobody>=3.0"])
    check_versions()


def test_our_own_ranges_are_read_as_packaging_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {requirement.name: requirement.specifier for requirement in project_requirements()["dependencies"]}
    install(tmp_path, "red-lightning", "0.1.0", [f"{name}{limits}" for name, limits in expected.items()])
    monkeypatch.syspath_prepend(str(tmp_path))
    read = dict(versions.ranges())
    assert read.keys() == expected.keys()
    for name, limits in read.items():
        assert {f"{symbol}{limit}" for symbol, limit in limits} == {str(part) for part in expected[name]}


def test_the_lock_gives_the_newest_major_of_each() -> None:
    majors = versions.tested_majors()
    assert majors["torch"] == 2
    assert majors["huggingface-hub"] == 2
    assert majors["peft"] == 0


def _run(site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = environment(PYTHONPATH=f"{site}:{REPOSITORY}")
    return subprocess.run(command, cwd=site, env=env, capture_output=True, text=True, timeout=60)


def test_every_entry_refuses_an_old_version(site: Path) -> None:
    install(site, "transformers", "4.50.0")
    script = site / "bin" / "red-lightning"
    script.parent.mkdir()
    script.write_text("from red_lightning.__main__ import main\nraise SystemExit(main())\n", encoding="utf-8")
    for command in (
        command_line("configs"),
        [sys.executable, "-m", "red_lightning.quickstart.pretrain"],
        [sys.executable, str(script), "configs"],
    ):
        refused = _run(site, *command)
        assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"error: {OLD}\n")
    imported = _run(site, sys.executable, "-c", "import red_lightning.families")
    assert imported.returncode == 1
    assert imported.stderr.splitlines()[-1] == f"red_lightning.compat.versions.VersionError: {OLD}"


def test_a_newer_major_is_told_once_and_used(site: Path) -> None:
    install(site, "transformers", "1000.0.0")
    listed = _run(site, *command_line("configs"))
    assert listed.returncode == 0
    assert "quickstart" in listed.stdout
    assert listed.stderr.count("1000.0.0 is installed") == 1


def test_the_check_is_quick_and_imports_nothing_heavy(site: Path) -> None:
    code = (
        "import importlib.metadata, sys, time\n"
        "from red_lightning.compat.versions import check_versions\n"
        "start = time.process_time(); check_versions(); print(time.process_time() - start)\n"
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])\n"
    )
    seconds, heavy = _run(site, sys.executable, "-c", code).stdout.splitlines()
    assert float(seconds) < 0.02
    assert heavy == "[]"
