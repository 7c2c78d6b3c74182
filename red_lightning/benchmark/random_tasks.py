"""Tasks and folders with random weights of a stated shape, and with the tokenizers of pretrained models."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import nn

from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import Shape, config_of, random_model
from red_lightning.methods import Method
from red_lightning.quickstart import BACKBONE_FOLDER
from red_lightning.tasks.base import BackboneTask

Task = TypeVar("Task", bound=BackboneTask)


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a hub repository or folder, with a padding token.

    Raises:
        UsageError: There is none, or it cannot be reached.
    """
    options = BackboneOptions()
    return load_tokenizer(find(name, options), options, needs_eos=False)


def random_task(
    kind: type[Task], method: Method, shape: Shape, tokenizer: Any, settings: Settings, **options: Any
) -> Task:
    """A task whose backbone has random weights; ``configure_model`` makes it.

    Args:
        kind: The task's class.
        method: How the backbone is adapted.
        shape: The backbone's; its vocabulary grows to the tokenizer's.
        tokenizer: Reads the texts.
        settings: Device and dtype.
        **options: The task's own.
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


def save_folder(model: Any, folder: Path) -> None:
    """Write a model as ``from_pretrained`` reads it, with the quickstart's tokenizer."""
    model.save_pretrained(folder)
    for file in BACKBONE_FOLDER.glob("tokenizer*"):
        shutil.copy(file, folder)
