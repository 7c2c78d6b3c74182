"""Random models of stated shapes, so that nothing is downloaded and a speed can be measured all the same."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, LlamaConfig, RobertaConfig

from red_lightning.benchmark.settings import Settings


@dataclass(frozen=True)
class Shape:
    """The shape of a model, and of the batches that it is measured with.

    Attributes:
        family: ``GPT-2``, ``Llama`` or ``RoBERTa``.
        layers: Blocks.
        width: Columns of the residual stream.
        heads: Attention heads.
        inner: Columns inside the FFN.
        vocabulary: Tokens that the model knows.
        rows: Rows of a batch.
        tokens: Tokens of a row.
    """

    family: str
    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    rows: int
    tokens: int

    @property
    def title(self) -> str:
        """The shape in a few words."""
        return f"{self.family}, {self.layers} layers of {self.width}, {self.rows}x{self.tokens} tokens"


SHAPES = {
    "tiny": {
        "gpt2": Shape("GPT-2", 2, 32, 4, 128, 301, 2, 8),
        "llama": Shape("Llama", 2, 32, 4, 86, 301, 2, 8),
        "roberta": Shape("RoBERTa", 2, 32, 4, 128, 301, 2, 8),
    },
    "small": {
        "gpt2": Shape("GPT-2", 12, 768, 12, 3072, 50257, 4, 64),
        "llama": Shape("Llama", 6, 512, 8, 1376, 32000, 4, 128),
        "roberta": Shape("RoBERTa", 4, 768, 12, 3072, 50265, 4, 128),
    },
    "paper": {
        "gpt2": Shape("GPT-2", 24, 1024, 16, 4096, 50257, 10, 64),
        "llama": Shape("Llama", 32, 4096, 32, 11008, 32000, 2, 768),
        "roberta": Shape("RoBERTa", 12, 768, 12, 3072, 50265, 32, 128),
    },
}
"""Size -> model -> shape. ``paper`` has GPT-2 medium, Llama-2 7B and RoBERTa-base."""


def shape_of(model: str, settings: Settings) -> Shape:
    """The shape of ``gpt2``, ``llama`` or ``roberta`` at the size that is asked for."""
    return SHAPES[settings.size][model]


def config_of(shape: Shape, positions: int = 1024) -> Any:
    """The transformers configuration of a shape, without dropout.

    Args:
        shape: The shape.
        positions: The longest row that the model can read.
    """
    if shape.family == "GPT-2":
        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=positions,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.inner,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=shape.vocabulary - 1,
            eos_token_id=shape.vocabulary - 1,
        )
    sizes: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
    }
    if shape.family == "Llama":
        return LlamaConfig(**sizes, max_position_embeddings=max(positions, 2048))
    return RobertaConfig(
        **sizes,
        max_position_embeddings=positions + 2,  # which are counted from 2 on
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def build(model: str, settings: Settings, seed: int = 0) -> Any:
    """A random model in training mode, of the size, the dtype and on the device that are asked for.

    Args:
        model: ``gpt2`` and ``llama`` have a language head, ``roberta`` has none.
        settings: Size, device and dtype.
        seed: Models of one seed are equal.
    """
    return random_model(config_of(shape_of(model, settings)), settings, seed)


def random_model(config: Any, settings: Settings, seed: int = 0) -> Any:
    """What :func:`build` returns, of a configuration."""
    kind: Any = AutoModel if config.model_type == "roberta" else AutoModelForCausalLM
    devices = range(torch.cuda.device_count() if settings.device == "cuda" else 0)
    with torch.random.fork_rng(devices), torch.device(settings.device):
        torch.manual_seed(seed)
        return kind.from_config(config, dtype=settings.torch_dtype).train()


def token_ids(shape: Shape, settings: Settings, rows: int | None = None, tokens: int | None = None) -> Tensor:
    """Random tokens: int64, shape (rows, tokens), the shape's own if none are given."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = (rows or shape.rows, tokens or shape.tokens)
    return torch.randint(5, shape.vocabulary - 1, size, generator=generator).to(settings.device)
