"""What is scored: a run's edits, or a model without edits (plain, or merged)."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from red_lightning.artifacts import Edited, find_edits, read_edits
from red_lightning.artifacts.loading import find_backbone, has_edits, trained_options
from red_lightning.backbones import loading
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.errors import UsageError
from red_lightning.generation.models import open_model


class Candidate(NamedTuple):
    """A model that was found, and is not loaded yet.

    Attributes:
        edits: Its edits, as a folder; None for a model without any.
        backbone: Where the model without edits is, as a folder or hub id; None for where the edits say.
        options: How it is loaded.
        identity: What tells it from others, as plain values: scores are kept for it.
    """

    edits: Path | None
    backbone: str | None
    options: BackboneOptions
    identity: dict[str, Any]

    def load(self, device: str | None = None) -> Edited:
        """Load it.

        Args:
            device: Where it goes; None for a GPU if there is one.
        """
        return open_model(str(self.edits) if self.edits else None, self.backbone, None, self.options, device)

    def tokenizer(self, record: Mapping[str, Any]) -> Any:
        """Its tokenizer.

        Args:
            record: The contents of its ``edits.json``; empty for a model without edits.
        """
        return load_tokenizer(*find_backbone(record, self.backbone, self.options))


def find_model(model: str, backbone: str | None, revision: str | None, options: BackboneOptions | None) -> Candidate:
    """Find a model, and refuse what cannot be scored before anything large is read.

    Args:
        model: A run's folder, its ``edits`` folder, a folder with a model, or a hub repository of edits or of a model.
        backbone: Where the backbone of edits is now; None for where they say.
        revision: Branch, tag or commit of the hub repository.
        options: How the model is loaded; None for a run's own dtype and quantisation, and float32.

    Raises:
        UsageError: There is no such model, or it writes no texts.
    """
    if not has_edits(model, revision):
        if backbone is not None:
            raise UsageError(f"'{model}' is a model without edits, so that it has no other backbone; leave it out")
        options = options or BackboneOptions()
        options = replace(options, revision=revision or options.revision)
        source = loading.find(model, options)
        state = {"commit": source.commit} if source.commit else {"weights": _state(Path(source.place))}
        return Candidate(None, model, options, {"model": model, **state, **_format(options)})
    folder = find_edits(model, revision)
    _, record = read_edits(folder)
    if record.get("head") or record.get("task") == "Classification":
        raise UsageError(f"the edits in '{folder}' are a classifier's, but tasks are scored with a model that writes")
    learned = hashlib.sha256((folder / "edits.safetensors").read_bytes()).hexdigest()
    base = backbone or record["backbone"]
    options = trained_options(record, backbone, options)
    identity = {"model": model, "edits": learned, "backbone": base, "commit": options.revision, **_format(options)}
    return Candidate(folder, backbone, options, identity)


def _format(options: BackboneOptions) -> dict[str, Any]:
    return {"dtype": options.dtype, "quantization": options.quantization}


def _state(folder: Path) -> str:
    """What changes when a folder's weights are written anew; to read gigabytes again would take longer than a task."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
