"""The serving example runs as it is."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from red_lightning import RED, load, save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.generation import Writer
from tests.cli.commands import REPOSITORY, environment

SERVE = str(REPOSITORY / "launch/serve_edits.py")


@pytest.fixture
def runs(llama_folder: Path, tmp_path: Path) -> Path:
    """A folder with random edits of a tiny Llama: two for sources, one for instructions, one in bfloat16."""
    short = {"num_beams": 2, "max_new_tokens": 6}
    asked = {"task": "InstructionTuning", "decoding": {"num_beams": 1, "max_new_tokens": 5}}
    told = {"task": "DataToText", "decoding": short, "data": {"max_source_length": 16}}
    for seed, (name, its) in enumerate({"a": told, "b": told, "c": asked, "d": {**told, "dtype": "bfloat16"}}.items()):
        model = AutoModelForCausalLM.from_pretrained(llama_folder)
        record = {"backbone": str(llama_folder), "fingerprint": fingerprint(model), "method": RED().describe(), **its}
        learned = RED().apply(model)
        for vector in learned.values():
            vector.data += 0.5 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed))
        save_edits(tmp_path / name, learned, record)
    return tmp_path


def serve(folder: Path, lines: list[bytes], *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, SERVE, *args],
        input=b"".join(line + b"\n" for line in lines),
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=200,
    )


def test_every_request_gets_what_generate_writes_and_bad_ones_an_error(runs: Path, llama_folder: Path) -> None:
    good: list[dict[str, Any]] = [
        {"edit": "a", "prompt": "name[Zizzi]"},
        {"edit": "c", "prompt": "Who serves Thai food?"},
        {"edit": "b", "prompt": "name[Zizzi]", "id": 7},
        {"edit": "c", "prompt": [{"role": "user", "content": "And where?"}]},
        {"edit": "a", "prompt": "The Vaults"},
    ]
    bad = {
        b"{": "property name",
        b"[]": "a request is an object",
        b"\xff": "codec can't decode",
        b"[" * 9999: "recursion",
        b'{"edit": "a"}': "a request is an object",
        b'{"edit": "a", "prompt": 5}': "a request is an object",
        b'{"edit": "c", "prompt": "Hi", "system": "Rhyme."}': "the request has 'system', which is not read",
        b'{"edit": "a", "prompt": " "}': "the prompt is empty",
        b'{"edit": "a", "prompt": "\\ud800"}': "the prompt is no UTF-8",
        json.dumps({"edit": "a", "prompt": "word " * 99}).encode(): "at most 16; shorten it",
        b'{"edit": "nobody", "prompt": "The"}': "there is no such edit; there are a, b, c",
        b'{"edit": "a", "prompt": [{"role": "user", "content": "The"}]}': "this edit continues texts; give a text",
        b'{"edit": ["a"], "prompt": "The"}': "there is no such edit",
        b'{"edit": "c", "prompt": [5]}': "message 1 of the prompt",
    }
    lines = [json.dumps(request).encode() for request in good]
    ended = serve(runs, [*lines[:2], *bad, b"", *lines[2:]], str(llama_folder), "a=a", "b=b", "c=c")
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    for line, complaint in zip(said[2:-3], bad.values(), strict=True):
        assert "answer" not in line and complaint in line["error"]
    writers = {name: Writer(load(runs / name)) for name in "abc"}
    wanted = []
    for request in good:
        writer, prompt = writers[request["edit"]], request["prompt"]
        text = writer.write([prompt])[0] if isinstance(prompt, str) else writer.answer([prompt])[0]
        wanted.append({**request, "answer": text})
    assert [*said[:2], *said[-3:]] == wanted
    assert wanted[0]["answer"] != wanted[2]["answer"]


def test_the_quickstarts_backbone_has_a_name() -> None:
    bank, writers = runpy.run_path(SERVE)["load"]("quickstart", [])
    assert writers[None].encode(["name[Zizzi]"])[0] and bank.names == []


def test_bad_arguments_are_one_sentence(runs: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    Path("empty").mkdir()
    place = str(llama_folder)
    for args, said in {
        (): "give the backbone and its edits",
        (place, "a"): "as in thai=runs/thai",
        (place, "=a"): "as in thai=runs/thai",
        (place, "a=a", "a=b"): "another name",
        (place, "a=empty"): "holds no edits",
        (place, "a=a", "d=d"): "'d' was trained in another number format",
        ("./nowhere", "a=a"): "does not exist",
    }.items():
        monkeypatch.setattr(sys, "argv", [SERVE, *args])
        with pytest.raises(SystemExit, match=f"^error: .*{said}[^\n]*$"):
            runpy.run_path(SERVE, run_name="__main__")
