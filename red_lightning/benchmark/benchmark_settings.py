"""The settings of a benchmark. This module does not import torch, so that the command starts quickly."""

from dataclasses import dataclass
from typing import Any, Literal

from red_lightning.errors import UsageError, require_range


@dataclass(frozen=True)
class Settings:
    """How to measure, and on what.

    Args:
        rounds: Runs of each variant. Use 31 or more to see differences of 1%.
        device: Device of the models. Times on cuda are device times.
        dtype: dtype of the frozen weights and of the computation.
        size: Size of the random models: tiny (to try the command), small (minutes on a laptop) or paper (the shapes of
            the paper's experiments, for a GPU).
        seed: Seed of the weights, the rows and the order of the variants.
        threads: Number of torch threads on the CPU. The process time adds up all threads.
        e2e_path: Hub id or folder of the E2E data.
        glue_path: Hub id or folder of the GLUE data.
        ultrafeedback_path: Hub id or folder of the UltraFeedback data.
        gpt2_tokenizer: Hub id or folder of the tokenizer for E2E.
        roberta_tokenizer: Hub id or folder of the tokenizer for GLUE.
        llama_tokenizer: Hub id or folder of the tokenizer for UltraFeedback.

    Raises:
        UsageError: A number is out of range, or torch sees no GPU.
    """

    rounds: int = 5
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    size: Literal["tiny", "small", "paper"] = "small"
    seed: int = 0
    threads: int = 1
    e2e_path: str = "tuetschek/e2e_nlg"
    glue_path: str = "nyu-mll/glue"
    ultrafeedback_path: str = "HuggingFaceH4/ultrafeedback_binarized"
    gpt2_tokenizer: str = "openai-community/gpt2"
    roberta_tokenizer: str = "FacebookAI/roberta-base"
    llama_tokenizer: str = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"

    def __post_init__(self) -> None:
        import torch

        require_range("rounds", self.rounds, 1)
        require_range("threads", self.threads, 1)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device is cuda, but torch sees no GPU here; give --device cpu, or install torch for CUDA")

    @property
    def torch_dtype(self) -> Any:
        """The ``torch.dtype`` of the models."""
        import torch

        return getattr(torch, self.dtype)

    @property
    def exact(self) -> bool:
        """Whether losses can be compared: bfloat16 rounds differently where the order of operations differs."""
        return self.dtype == "float32"
