"""Settings for the cases that read data."""

from pathlib import Path

import pytest

from red_lightning.benchmark.benchmark_settings import Settings


@pytest.fixture(scope="package")
def tiny(shared: Path) -> Settings:
    """One round on tiny models, with data and tokenizers of the reference material."""
    hub = shared / "hub"
    return Settings(
        rounds=1,
        size="tiny",
        e2e_path=str(hub / "tuetschek/e2e_nlg"),
        glue_path=str(hub / "nyu-mll/glue"),
        ultrafeedback_path=str(hub / "HuggingFaceH4/ultrafeedback_binarized"),
        gpt2_tokenizer=str(hub / "openai-community/gpt2-medium"),
        roberta_tokenizer=str(hub / "FacebookAI/roberta-base"),
        llama_tokenizer=str(hub / "meta-llama/Llama-2-7b-hf"),
    )
