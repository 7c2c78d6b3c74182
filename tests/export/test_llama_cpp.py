"""llama.cpp runs what is exported for it: its converter takes the folder, and its logits are the edited model's.

Needs llama.cpp's sources (its converter is no package) where the variable LLAMA_CPP says, and of the same version
``llama-cpp-python``; the sources of the latter hold both: ``pip download --no-deps llama-cpp-python``.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from red_lightning.export import export_merged
from red_lightning.methods import RED
from red_lightning.methods.red import RED_PLUS_SITES
from tests.backbones_zoo import LACKING, save_backbone
from tests.export.exports import TOKENS, logits, trained

pytestmark = pytest.mark.slow
SOURCES = Path(os.environ.get("LLAMA_CPP", ""))
DECODERS = {
    "gpt2": "both",
    "llama": "both",
    "mistral": "both",
    "phi3": "both",
    "gpt_neox": "both",
    "qwen2": "both",
    "qwen3": "scaling",
    "gemma": "scaling",
}
"""Not Phi, Gemma 2 and Gemma 3: of their sizes the converter assumes what tiny ones do not have."""

# What is changed of the converter: the tiny tokenizer splits texts as none that it knows, nor is it of Gemma's kind,
# which does not matter to the logits of tokens; and transformers 5 drops a name (rotary_pct) that it reads of GPT-NeoX.
CONVERT = """
import json, runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion import base, gemma
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
for model in (gemma.GemmaModel, gemma.Gemma2Model, gemma.Gemma3Model):
    model.set_vocab = base.TextModel._set_vocab_gpt2
load = base.ModelBase.load_hparams
base.ModelBase.load_hparams = staticmethod(
    lambda folder, *rest, **named: {**json.load(open(folder / "config.json")), **load(folder, *rest, **named)}
)
for folder in sys.argv[2:]:
    sys.argv = ["convert", folder, "--outfile", folder + ".gguf", "--outtype", "f32"]
    try:
        runpy.run_path(sys.path[0] + "/convert_hf_to_gguf.py", run_name="__main__")
    except (Exception, SystemExit) as error:
        print("failed:", folder, repr(error))
"""


@pytest.fixture(scope="module")
def converter() -> Path:
    """llama.cpp's converter, where all that it needs is here."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("sentencepiece", reason="sentencepiece, which llama.cpp's converter imports, is not installed")
    if not (SOURCES / "convert_hf_to_gguf.py").is_file():
        pytest.skip("the variable LLAMA_CPP does not name a folder with llama.cpp's convert_hf_to_gguf.py")
    return SOURCES / "convert_hf_to_gguf.py"


@pytest.fixture(scope="module")
def every(converter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A folder with the GGUF file of each family, and the logits of the edited models."""
    root = tmp_path_factory.mktemp("gguf")
    expected = {}
    for family, vectors in DECODERS.items():
        sites = [site for site in RED_PLUS_SITES if site not in LACKING.get(family, ())]
        backbone = save_backbone(family, root / "backbones" / family)
        model, _ = trained(root / "runs" / family, backbone, RED(sites, vectors))  # type: ignore[arg-type]
        expected[family] = logits(model)[0]
        export_merged(root / "runs" / family, root / named(family), for_llama_cpp=True)
    folders = [str(root / named(family)) for family in DECODERS]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(converter.parent), *folders], capture_output=True, text=True
    )
    (root / "log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return root, expected


@pytest.mark.parametrize("family", DECODERS)
def test_llama_cpp_computes_the_same(family: str, every: tuple[Path, dict[str, Tensor]]) -> None:
    root, expected = every
    file = root / f"{named(family)}.gguf"
    assert file.is_file(), (root / "log").read_text(encoding="utf-8")
    got = run_llama_cpp(file)[:, : expected[family].shape[1]]
    near = 1e-3 if family in ("gpt2", "gpt_neox", "gemma") else 1e-4  # ggml looks GELU up in a table of 16-bit numbers
    assert (got - expected[family]).abs().max() < near


def named(family: str) -> str:
    """A model's folder, whose name becomes the model's: llama.cpp wants Phi-3's own tokens of any ``phi3``."""
    return f"tiny_{list(DECODERS).index(family)}"


def run_llama_cpp(file: Path) -> Tensor:
    """The logits of the first row of tokens, with keys and values cached as float32."""
    from llama_cpp import GGML_TYPE_F32, Llama

    tokens = TOKENS[0].tolist()
    kinds: dict[str, Any] = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32, "flash_attn": False}
    model = Llama(str(file), n_ctx=64, n_batch=64, n_threads=1, logits_all=True, **kinds)  # says why it cannot
    model.eval(tokens)
    scores = torch.tensor(model.scores[: len(tokens)])
    model.close()
    return scores


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "mistralai/Mistral-7B-v0.1"])
def test_texts_are_the_same_with_the_backbones_own_tokenizer(
    name: str, converter: Path, shared: Path, tmp_path: Path
) -> None:
    from llama_cpp import Llama

    model, _ = trained(tmp_path / "run", shared / "hub" / name, RED(RED_PLUS_SITES))
    folder = export_merged(tmp_path / "run", tmp_path / "merged", dtype="float32", for_llama_cpp=True).folder
    command = [sys.executable, str(converter), str(folder), "--outfile", str(tmp_path / "gguf"), "--outtype", "f32"]
    paths = os.pathsep.join([str(converter.parent / "gguf-py"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": paths})
    text = "The Vaults is a cheap pub near Burger King."
    tokens = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    written = model.generate(  # type: ignore[operator]
        torch.tensor([tokens]), max_new_tokens=12, min_new_tokens=12, do_sample=False
    )[0, len(tokens) :]
    runtime = Llama(str(tmp_path / "gguf"), n_ctx=64, n_threads=1, verbose=False)
    assert runtime.tokenize(text.encode(), add_bos=True) == tokens
    assert [token for token, _ in zip(runtime.generate(tokens, top_k=1), range(12))] == written.tolist()  # noqa: B905
    runtime.close()
