"""Locate a backbone's weights: the file and key of each parameter."""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from red_lightning import hub
from red_lightning.backbones.loading import Source
from red_lightning.families import record_of

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""What the files of a tokenizer may be called."""

Place = tuple[Path, str]
"""A file and the name of a tensor in it."""


def find_places(source: Source, backbone: nn.Module) -> dict[str, Place] | None:
    """Where each tensor of the backbone lies, by its name in it; None if one has no place or another shape there."""
    try:
        files = _files(source)
        shapes = {key: _shape(place) for key, place in files.items()}
    except (SafetensorError, OSError, ValueError, KeyError):
        return None  # loading it whole says what is wrong
    prefix = f"{backbone.base_model_prefix}."
    record = record_of(source.config)
    older = record.older_tensors if record else {}
    places: dict[Tensor, Place] = {}
    tensors = backbone.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        for key in (name, prefix + name, name.removeprefix(prefix), older.get(name)):
            if key is not None and shapes.get(key) == list(tensor.shape):
                places.setdefault(tensor, files[key])
                break
    if not all(tensor in places for tensor in tensors.values()):  # tied ones have one place
        return None
    return {name: places[tensor] for name, tensor in tensors.items()}


def names_in_files(source: Source) -> list[str]:
    """The names of the tensors in a backbone's safetensors files."""
    return list(_files(source))


def _files(source: Source) -> dict[str, Place]:
    """Where each tensor lies, by its name in the files."""
    if index := file_of(source, "model.safetensors.index.json"):
        names: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = {name: file_of(source, name) for name in sorted(set(names.values()))}
        return {key: (path, key) for key, name in names.items() if (path := paths[name]) is not None}
    single = file_of(source, "model.safetensors")
    if single is None:
        return {}
    with safe_open(single, "pt") as file:
        return {key: (single, key) for key in file.keys()}  # noqa: SIM118 - no mapping


def file_of(source: Source, name: str) -> Path | None:
    """A file of a backbone on this machine, downloaded if need be; None if the backbone has none of that name."""
    folder = hub.local_folder(source.name)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(source.name, name, revision=source.commit, local_files_only=source.local_only))
    except EntryNotFoundError:
        return None


def _shape(place: Place) -> list[int]:
    path, key = place
    with safe_open(path, "pt") as file:
        return list(file.get_slice(key).get_shape())
