"""A merged checkpoint is written with the memory of one of its files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from red_lightning.methods import RED
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import build_tokenizer
from tests.cli.commands import environment
from tests.export.exports import trained

MEASURE = """
import sys
from pathlib import Path
from red_lightning.export import export_merged

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

export_merged(sys.argv[1], sys.argv[2])  # imports what is imported late
before = memory("VmRSS:")
export_merged(sys.argv[3], sys.argv[4], max_shard_bytes=50_000_000)
print(memory("VmHWM:") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_is_that_of_one_file_not_of_the_model(llama_folder: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 18, "num_attention_heads": 16}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=300, dtype="bfloat16")).bfloat16()
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.save_pretrained(tmp_path / "backbone", max_shard_size="200MB")
    del model
    build_tokenizer().save_pretrained(tmp_path / "backbone")
    trained(tmp_path / "run", tmp_path / "backbone", RED(RED_PLUS_SITES))
    trained(tmp_path / "tiny", llama_folder, RED(RED_PLUS_SITES))
    places = [str(tmp_path / name) for name in ("tiny", "tiny_merged", "run", "merged")]
    command = [sys.executable, "-c", MEASURE, *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    size = sum(file.stat().st_size for file in (tmp_path / "merged").glob("*.safetensors"))
    print(f"{int(done.stdout) / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB")
    assert size > 400e6 and int(done.stdout) < 50e6 + 100e6  # a file, and a few tensors of 17 MB in float32
