"""A run that is killed at any moment and continued leaves exactly what the run that was never killed leaves."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.commands import command_line, environment, results, write_experiment
from tests.cli.conftest import CLI

FIT = ("fit", "--config", "small.yaml", "--checkpoint.every_n_steps", "1")


def kill_when(moment: Callable[[Path], bool], run: Path, folder: Path, *args: str) -> int:
    """Start a run in a process of its own and SIGKILL it at a moment that its folder shows.

    Returns:
        Its status: ``-SIGKILL``, or another one if it ended before.
    """
    process = subprocess.Popen(
        command_line(*args),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that the processes that it starts die with it
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if moment(run):
            break
        time.sleep(0.0005)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def writes(count: int) -> Callable[[Path], bool]:
    """True once ``last.ckpt`` was replaced so often since this process started."""
    seen: set[tuple[int, int]] = set()

    def moment(run: Path) -> bool:
        try:
            state = (run / "checkpoints/last.ckpt").stat()
        except FileNotFoundError:
            return False
        seen.add((state.st_ino, state.st_mtime_ns))
        return len(seen) > count

    return moment


def amid(file: str, count: int) -> Callable[[Path], bool]:
    """True while a file is there, after so many checkpoints."""
    enough = writes(count)
    passed = False

    def moment(run: Path) -> bool:
        nonlocal passed
        passed = passed or enough(run)
        return passed and (run / file).exists()

    return moment


def bytes_of(run: Path) -> dict[str, bytes]:
    """What a finished run leaves, as bytes."""
    files = ("edits/edits.safetensors", "test_predictions.jsonl")
    return {file: (run / file).read_bytes() for file in files}


def write_instructions(folder: Path, backbone: Path, max_epochs: int) -> None:
    """Write an experiment on 12 packed instructions, two micro-batches a step, called ``small.yaml`` too."""
    file = write_experiment(folder, backbone, max_epochs=max_epochs)
    experiment = json.loads(file.read_text(encoding="utf-8"))
    experiment["model"]["class_path"] = "InstructionTuning"
    del experiment["model"]["init_args"]["metrics"]
    rows = [{"prompt": f"What is {n}?", "response": f"{n} is " + "a number " * (1 + n % 4)} for n in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    batches = {"global_batch_size": 4, "micro_batch_size": 2, "eval_batch_size": 3, "packing": True, "max_length": 200}
    files = {"train_file": "rows.jsonl", "validation_size": 2}
    experiment["data"] = {"class_path": "Instructions", "init_args": {**files, **batches}}
    file.write_text(json.dumps(experiment, indent=2), encoding="utf-8")


def never_killed(cli: CLI, folder: Path) -> Path:
    """The folder of a run of the experiment in a folder that was never killed."""
    assert cli(*FIT, "--run.name", "whole").status == 0
    return folder / "runs/whole"


def continue_and_compare(cli: CLI, run: Path, whole: Path) -> None:
    outcome = cli(*FIT, "--run.name", run.name, "--ckpt_path", "last")
    assert outcome.status == 0, outcome.err
    assert results(run) == results(whole)
    assert bytes_of(run) == bytes_of(whole)


def test_one_kill(cli: CLI, tmp_path: Path, gpt2_folder: Path) -> None:
    write_experiment(tmp_path, gpt2_folder, max_epochs=3)
    whole = never_killed(cli, tmp_path)
    run = tmp_path / "runs/killed"
    assert kill_when(writes(7), run, tmp_path, *FIT, "--run.name", "killed") == -signal.SIGKILL
    assert not (run / "results.json").exists()
    assert "holds an unfinished run" in cli(*FIT, "--run.name", "killed").error
    continue_and_compare(cli, run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["DataToText", "InstructionTuning"])
def test_twenty_kills(task: str, cli: CLI, tmp_path: Path, gpt2_folder: Path, llama_folder: Path) -> None:
    if task == "DataToText":
        write_experiment(tmp_path, gpt2_folder, max_epochs=16)
    else:
        write_instructions(tmp_path, llama_folder, max_epochs=32)
    whole = never_killed(cli, tmp_path)
    draw = random.Random(task)
    moments = [writes(draw.randint(0, 4)) for _ in range(10)]
    moments += [amid(f"checkpoints/{name}.tmp", draw.randint(0, 3)) for name in ("last", "best") * 4]
    draw.shuffle(moments)
    moments.insert(0, lambda run: run.is_dir())
    moments.append(lambda run: (run / "test_predictions.jsonl").exists())
    run = tmp_path / "runs/killed"
    kills = 0
    for moment in moments:
        status = kill_when(moment, run, tmp_path, *FIT, "--run.name", "killed", "--ckpt_path", "last")
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0:
            break
    assert kills >= 15
    if (run / "results.json").exists():  # the last kill came after the end
        assert results(run) == results(whole)
        assert bytes_of(run) == bytes_of(whole)
    else:
        continue_and_compare(cli, run, whole)
