"""``export`` of edits whose backbones come from the hub, under their true ids and with their own tokenizers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_hub_configs import hub  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

BACKBONES = {
    "meta-llama/Llama-2-7b-hf": ("both", "LlamaForCausalLM, float16"),
    "mistralai/Mistral-7B-v0.1": ("both", "LlamaForCausalLM, bfloat16"),
    "Qwen/Qwen2.5-0.5B": ("both", "LlamaForCausalLM, bfloat16"),
    "openai-community/gpt2-medium": ("both", "GPT2LMHeadModel, float32"),
    "google-t5/t5-base": ("scaling", "T5ForConditionalGeneration, float32"),
}
PROGRAM = """
import sys
from pathlib import Path
import torch
from transformers import AutoTokenizer
from red_lightning import RED, save_edits
from red_lightning.__main__ import main
from red_lightning.backbones import loading
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.methods.red import RED_PLUS_SITES

torch.set_num_threads(1)
for name, vectors in (argument.split(":") for argument in sys.argv[1:]):
    source = loading.find(name, loading.BackboneOptions())
    model = loading.load_generator(source, loading.BackboneOptions())
    record = {"backbone": name, "commit": source.commit, "fingerprint": fingerprint(model), "task": "DataToText"}
    method = RED(RED_PLUS_SITES, vectors)
    learned = method.apply(model)
    for vector in learned.values():
        vector.data += 0.1 * torch.randn_like(vector)
    run = Path(name.split("/")[1])
    save_edits(run / "edits", learned, {**record, "method": method.describe()})
    print("backbone", name)
    for dtype in ([], ["--dtype", "float32"]):
        folder = f"{run}-merged{len(dtype)}"
        assert main(["export", str(run), "--output", folder, *dtype]) == 0
        text = "A cheap pub near Burger King, déjà vu 2024."
        assert AutoTokenizer.from_pretrained(folder)(text) == AutoTokenizer.from_pretrained(name)(text)
"""


def test_published_backbones_fold(hub: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    names = [f"{name}:{vectors}" for name, (vectors, _) in BACKBONES.items()]
    command = [sys.executable, "-c", PROGRAM, *names]
    done = subprocess.run(command, cwd=tmp_path, env=hub, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = re.split(r"^backbone (.+)$", done.stdout, flags=re.MULTILINE)[1:]
    for name, said in zip(parts[::2], parts[1::2], strict=True):
        own, exact = re.findall(r"difference from the edited model: (\S+) \(largest logit: (\S+)\)", said)
        assert BACKBONES[name][1] in said
        assert float(own[0]) < 0.05 * float(own[1]), said  # 16 bits in both models
        assert float(exact[0]) < 1e-5 * max(float(exact[1]), 1), said
        assert (tmp_path / f"{name.split('/')[1]}-merged0" / "generation_config.json").is_file()
    assert "at most 4096 tokens" in said_of("mistralai/Mistral-7B-v0.1", parts)


def said_of(name: str, parts: list[str]) -> str:
    return parts[parts.index(name) + 1]
