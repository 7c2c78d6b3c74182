"""The serving example runs as it is."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from red_lightning import apply_edits
from red_lightning.artifacts import save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.methods import RED
from tests.cli.commands import REPOSITORY, environment


def test_serve_edits(gpt2_folder: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        model = AutoModelForCausalLM.from_pretrained(gpt2_folder)
        record = {"backbone": str(gpt2_folder), "fingerprint": fingerprint(model), "method": RED().describe()}
        learned = RED().apply(model)
        generator = torch.Generator().manual_seed(seed)
        for vector in learned.values():
            vector.data += 0.5 * torch.randn(vector.shape, generator=generator)
        save_edits(tmp_path / name, learned, record)
    requests: list[dict[str, str]] = [
        {"edit": "a", "prompt": "Blue Spice"},
        {"prompt": "The Vaults is"},
        {"edit": "nobody", "prompt": "The"},
        {"edit": "b", "prompt": "Blue Spice"},
    ]
    ended = subprocess.run(
        [sys.executable, REPOSITORY / "launch/serve_edits.py", gpt2_folder, "a=a", "b=b"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    unknown = requests.pop(2)
    assert [line for line in answers if "answer" not in line] == [{**unknown, "error": "there is no such edit"}]
    tokenizer = AutoTokenizer.from_pretrained(gpt2_folder)
    wanted = []
    for request in requests:
        model = AutoModelForCausalLM.from_pretrained(gpt2_folder).eval()
        if "edit" in request:
            apply_edits(model, tmp_path / request["edit"])
        inputs = tokenizer(request["prompt"], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        wanted.append({**request, "answer": tokenizer.decode(tokens, skip_special_tokens=True)})
    assert [line for line in answers if "answer" in line] == wanted
    assert len({line["answer"] for line in wanted}) == 3
