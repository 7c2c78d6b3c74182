"""What every case of the benchmark is told."""

from dataclasses import dataclass
from typing import Literal

import torch

from red_lightning.errors import UsageError, require_range

Size = Literal["tiny", "small", "paper"]


@dataclass(frozen=True)
class Settings:
    """How to measure, and on what.

    Args:
        rounds: How often each variant runs; every round runs all of them, in an order of its own.
        device: Where the models are.
        dtype: Number format of the frozen weights and of the computation.
        size: How large the random models are: ``tiny`` (to try the command), ``small`` (minutes on a laptop) or
            ``paper`` (the shapes of the paper's experiments, for a GPU).
        seed: Seeds weights, rows and the order of the variants.
        threads: Threads of torch on the CPU.
        e2e_path: E2E data: a hub id, or a folder laid out like it.
        glue_path: GLUE data, likewise.
        ultrafeedback_path: UltraFeedback data, likewise.
        gpt2_tokenizer: Hub id or folder of the tokenizer that reads E2E.
        roberta_tokenizer: Hub id or folder of the tokenizer that reads GLUE.
        llama_tokenizer: Hub id or folder of the tokenizer that reads UltraFeedback.

    Raises:
        UsageError: A number is out of range, or there is no GPU.
    """

    rounds: int = 5
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    size: Size = "small"
    seed: int = 0
    threads: int = 1
    e2e_path: str = "tuetschek/e2e_nlg"
    glue_path: str = "nyu-mll/glue"
    ultrafeedback_path: str = "HuggingFaceH4/ultrafeedback_binarized"
    gpt2_tokenizer: str = "openai-community/gpt2"
    roberta_tokenizer: str = "FacebookAI/roberta-base"
    llama_tokenizer: str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"

    def __post_init__(self) -> None:
        require_range("rounds", self.rounds, 1)
        require_range("threads", self.threads, 1)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device is cuda, but torch sees no GPU here; give --device cpu, or install torch for CUDA")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format, as torch has it."""
        return torch.float32 if self.dtype == "float32" else torch.bfloat16
