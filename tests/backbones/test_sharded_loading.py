"""A backbone that two processes load in parts is the backbone, and neither of them holds it whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.backbones_zoo import FAMILIES, MASKED, build_tokenizer, save_backbone
from tests.cli.commands import environment

DECODERS = [family for family in FAMILIES if family not in (*MASKED, "t5")]


def in_two(*args: str) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.backbones.load_in_parts", *args]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_outputs_are_bit_for_bit_those_of_the_whole(tmp_path: Path) -> None:
    folders = [str(save_backbone(family, tmp_path / family)) for family in DECODERS]
    cases = [f"{folder}:{dtype}" for folder in folders for dtype in ("float32", "bfloat16")]
    assert in_two("equal", *cases) == ["True"] * len(cases)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured as Linux tells it")
def test_two_processes_hold_the_weights_once(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=10,
        num_attention_heads=8,
        dtype=torch.bfloat16,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)  # 0.37 GB
    build_tokenizer().save_pretrained(tmp_path)
    save_backbone("llama", tmp_path / "tiny")
    _, share = in_two("memory", f"{tmp_path / 'tiny'}:bfloat16", f"{tmp_path}:bfloat16")  # the first one imports
    assert float(share) < 1.2
