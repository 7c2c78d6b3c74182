"""A tiny Llama, edited and not, and the questions that it is asked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from red_lightning import RED
from tests.evaluation.questions import write_questions


@pytest.fixture(scope="session")
def real_questions(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first rows of five benchmarks, laid out as on the hub."""
    benchmarks = ("arc", "truthfulqa", "winogrande", "gsm8k", "hellaswag")
    return write_questions(tmp_path_factory.mktemp("questions"), shared, 40, benchmarks)


@pytest.fixture
def questions(real_questions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the working folder: datasets reads a folder of a repository's name there in its place."""
    import datasets.config

    monkeypatch.chdir(real_questions)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", real_questions / "cache")
    return real_questions


@pytest.fixture(scope="session")
def tokenizer(llama_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(llama_folder)


@pytest.fixture
def llama(llama_folder: Path) -> LlamaForCausalLM:
    """A tiny Llama that reads 700 tokens."""
    return LlamaForCausalLM.from_pretrained(llama_folder, max_position_embeddings=700).eval()


@pytest.fixture
def edited(llama_folder: Path) -> LlamaForCausalLM:
    """The same with random edits at each ``mlp.down_proj``."""
    model = LlamaForCausalLM.from_pretrained(llama_folder, max_position_embeddings=700).eval()
    torch.manual_seed(3)
    for parameter in RED().apply(model).values():
        parameter.data.add_(torch.randn_like(parameter))
    return model
