"""Tasks and folders with random weights of a stated shape, and with the tokenizers of pretrained models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import nn

from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import Shape, config_of, random_model
from red_lightning.errors import UsageError
from red_lightning.methods import Method
from red_lightning.quickstart import BACKBONE_FOLDER
from red_lightning.tasks.backbone_task import BackboneTask

Task = TypeVar("Task", bound=BackboneTask)


@contextmanager
def given_by(option: str) -> Iterator[None]:
    """Name the option of the command line that says where something is, if it is not there.

    Args:
        option: Its name, without dashes.

    Raises:
        UsageError: The sentence of the one inside, which begins with the option.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"--{option}: {error}") from error


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a hub repository or folder, with a padding token.

    Raises:
        UsageError: There is none, or it cannot be reached.
    """
    options = BackboneOptions()
    try:
        source = find(name, options)
    except UsageError as error:  # whose sentence is about a model, of which no more than this is wanted
        raise UsageError(str(error).replace(f"the backbone '{name}'", f"the tokenizer '{name}'")) from error
    return load_tokenizer(source, options, needs_eos=False)


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
