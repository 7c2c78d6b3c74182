"""The command ``benchmark``, in a separate process and in this one."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from red_lightning.__main__ import main
from red_lightning.benchmark import CASES, benchmark_report
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.cli.benchmark import benchmark
from tests.cli.commands import imported_by, run_apart


def test_a_case_is_printed_and_written(tmp_path: Path) -> None:
    options = ("--rounds", "1", "--size", "tiny", "--output", "out.json")
    done = run_apart(tmp_path, "benchmark", "--cases", "checkpoint_bytes,many_edits", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "checkpoint_bytes: size of a run's checkpoint and adapter" in done.stdout
    assert "3 different adapters" in done.stdout
    assert "each row has the logits of a batch with its adapter alone: holds" in done.stdout
    assert done.stdout.splitlines()[-1] == "wrote out.json"
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {*written} == {"machine", "versions", "settings", "cases"}
    assert {*written["cases"]} == {"checkpoint_bytes", "many_edits"}
    row = written["cases"]["many_edits"]["rows"][1]
    assert len(row["amounts"]) == len(row["ratios"]) == len(row["wall"]) == 1


def test_the_list_of_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [*CASES]
    assert all(len(line) <= 120 for line in shown)


def test_the_list_is_quick() -> None:
    done = imported_by("benchmark", "list")
    assert done.stderr.strip() == ""
    assert len(done.stdout.splitlines()) == len(CASES)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("all", [*CASES]),
        ("all,many_edits", [*CASES]),
        ("step_time, all", [*CASES]),
        ("many_edits,step_time,many_edits", ["many_edits", "step_time"]),
    ],
)
def test_which_cases_run(given: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(names: list[str], *rest: object) -> bool:
        ran.extend(names)
        return True

    monkeypatch.setattr(benchmark_report, "run_cases", run)
    benchmark([given])
    assert ran == chosen


def test_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    for sound in (True, False):
        monkeypatch.setattr(benchmark_report, "run_cases", lambda *args, sound=sound: sound)
        if sound:
            assert main(["benchmark", "--cases", "step_time"]) == 0
        else:
            with pytest.raises(SystemExit) as end:
                main(["benchmark", "--cases", "step_time"])
            assert end.value.code == 1


@pytest.mark.parametrize(
    ("case", "option"),
    [
        ("e2e_training", "gpt2_tokenizer"),
        ("e2e_training", "e2e_path"),
        ("e2e_evaluation", "e2e_path"),
        ("e2e_decoding", "gpt2_tokenizer"),
        ("e2e_decoding", "e2e_path"),
        ("glue_training", "roberta_tokenizer"),
        ("glue_training", "glue_path"),
        ("instruction_tuning", "llama_tokenizer"),
        ("instruction_tuning", "ultrafeedback_path"),
    ],
)
def test_what_is_missing_is_named_by_its_option(case: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizers = [f"--{name}=quickstart" for name in ("gpt2_tokenizer", "roberta_tokenizer", "llama_tokenizer")]
    assert main(["benchmark", "--cases", case, "--size", "tiny", *tokenizers, f"--{option}", "/no/such/folder"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: --{option}: ") and "backbone" not in shown.err
    assert len(shown.err.splitlines()) == 1
    assert "/no/such/folder" not in shown.out


def test_a_tokenizer_is_no_backbone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["benchmark", "--cases", "e2e_decoding", "--gpt2_tokenizer", "no-one/nothing"]) == 2
    sentence = (
        "error: --gpt2_tokenizer: the tokenizer 'no-one/nothing' is not on this machine and HF_HUB_OFFLINE is set; "
    )
    assert capsys.readouterr().err.startswith(sentence)


def test_options_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []

    def run(names: list[str], settings: Settings, output: object) -> bool:
        given.append(settings)
        return True

    monkeypatch.setattr(benchmark_report, "run_cases", run)
    assert main(["benchmark", "--rounds", "7", "--dtype", "bfloat16", "--glue_path", "folder"]) == 0
    assert given == [Settings(rounds=7, dtype="bfloat16", glue_path="folder")]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--cases", "step_tim"], "there is no case 'step_tim': did you mean 'step_time'? known: "),
        (["--cases", "step_time,x"], "there is no case 'x': known: "),
        (["--cases", "step_time", "--rounds", "0"], "rounds is 0, but must be at least 1"),
        (
            ["--cases", "step_time", "--output", "no/such/file.json"],
            "the folder of --output no/such/file.json",
        ),
        (
            ["--cases", "step_time", "--output", "."],
            "--output . is a folder; give the file to write, such as speed.json",
        ),
        (["--size", "huge"], "size cannot be 'huge': it takes one of "),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *args]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {sentence}")
    assert len(shown.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--cases", "step_time", "--device", "cuda"]) == 2
    assert "device is cuda, but torch sees no GPU here" in capsys.readouterr().err
