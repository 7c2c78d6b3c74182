"""Shared by all tests: tiny random backbones, and the folder of reference material where it exists."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for the child processes

from tests.backbones_zoo import save_backbone

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the repository; tests of it skip where it does not exist."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference material {SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny models: more threads only wait for one another


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random GPT-2 and its tokenizer."""
    return save_backbone("gpt2", tmp_path_factory.mktemp("backbones") / "gpt2")


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random T5 and its tokenizer."""
    return save_backbone("t5", tmp_path_factory.mktemp("backbones") / "t5")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama and its tokenizer."""
    return save_backbone("llama", tmp_path_factory.mktemp("backbones") / "llama")
