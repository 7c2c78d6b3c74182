"""Models and tasks with random weights of published shapes. Only tokenizers come from the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, LlamaConfig, RobertaConfig

from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.benchmark.benchmark_settings import Settings
from red_lightning.errors import UsageError
from red_lightning.methods import RED
from red_lightning.tasks.backbone_task import BackboneTask

Task = TypeVar("Task", bound=BackboneTask)


@dataclass(frozen=True)
class Shape:
    """The shape of a model and of its batches.

    Attributes:
        family: ``GPT-2``, ``Llama`` or ``RoBERTa``.
        layers: Number of blocks.
        width: Hidden size.
        heads: Number of attention heads.
        inner: Inner size of the FFN.
        vocabulary: Number of tokens in the vocabulary.
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
    def model(self) -> str:
        """The model in a few words."""
        return f"{self.family}, {self.layers} layers of {self.width}"

    @property
    def title(self) -> str:
        """Model and batch in a few words."""
        return f"{self.model}, {self.rows}x{self.tokens} tokens"


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
    """Return the shape of ``gpt2``, ``llama`` or ``roberta`` at the size of the settings."""
    return SHAPES[settings.size][model]


def config_of(shape: Shape) -> Any:
    """Return the transformers configuration of a shape, without dropout and with 1,024 positions or more."""
    if shape.family == "GPT-2":
        return GPT2Config(
            vocab_size=shape.vocabulary,
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
        return LlamaConfig(**sizes)
    sizes |= {"max_position_embeddings": 1026, "type_vocab_size": 1}  # RoBERTa counts positions from 2
    return RobertaConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def build(model: str, settings: Settings, seed: int = 0) -> Any:
    """Return a random model in training mode. Equal seeds give equal weights.

    Args:
        model: ``gpt2`` or ``llama`` with a language-model head, or ``roberta`` without a head.
        settings: Size, device and dtype.
        seed: Seed of the weights.
    """
    return random_model(config_of(shape_of(model, settings)), settings, seed)


def random_model(config: Any, settings: Settings, seed: int = 0) -> Any:
    """Return a random model of a configuration, in training mode."""
    kind: Any = AutoModel if config.model_type == "roberta" else AutoModelForCausalLM
    devices = range(torch.cuda.device_count() if settings.device == "cuda" else 0)
    with torch.random.fork_rng(devices), torch.device(settings.device):
        torch.manual_seed(seed)
        return kind.from_config(config, dtype=settings.torch_dtype).train()


def random_red(model: nn.Module) -> None:
    """Edit a model by RED with vectors that change its outputs."""
    with torch.no_grad():
        for parameter in RED().apply(model).values():
            parameter.add_(0.1)


def token_ids(shape: Shape, settings: Settings, rows: int | None = None, tokens: int | None = None) -> Tensor:
    """Return random tokens: int64, shape (rows, tokens). The shape has the defaults."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = (rows or shape.rows, tokens or shape.tokens)
    return torch.randint(5, shape.vocabulary - 1, size, generator=generator).to(settings.device)


@contextmanager
def given_by(option: str) -> Iterator[None]:
    """Begin the message of a ``UsageError`` with the option that causes it.

    Args:
        option: Name of the option, without dashes.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"--{option}: {error}") from error


def tokenizer_of(name: str) -> Any:
    """Load the tokenizer of a hub repository or folder, with a padding token.

    Raises:
        UsageError: It does not exist or cannot be reached.
    """
    options = BackboneOptions()
    try:
        source = find(name, options)
    except UsageError as error:  # its sentence calls it a backbone
        raise UsageError(str(error).replace(f"the backbone '{name}'", f"the tokenizer '{name}'")) from error
    return load_tokenizer(source, options, needs_eos=False)


def random_task(
    kind: type[Task], method: Any, shape: Shape, tokenizer: Any, settings: Settings, **options: Any
) -> Task:
    """Return a task whose ``configure_model`` makes a backbone with random weights.

    Args:
        kind: Class of the task.
        method: The PEFT method.
        shape: Shape of the backbone. Its vocabulary grows to that of the tokenizer.
        tokenizer: Tokenizer of the task.
        settings: Device, dtype and seed.
        **options: Options of the task.
    """

    class Random(kind):  # type: ignore[misc, valid-type]
        def load_backbone(self, meta: bool = False) -> nn.Module:
            return random_model(self.source.config, settings, settings.seed)

    config = config_of(shape)
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    config.pad_token_id = tokenizer.pad_token_id
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        task: Task = Random(folder, method, **options)
    return task
