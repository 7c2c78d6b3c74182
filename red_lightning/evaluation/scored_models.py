"""Find the model to score: an adapter, or a model without one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from red_lightning.adapters import Edited, find_edits
from red_lightning.adapters.edited import find_backbone, find_unedited, folder_first, has_edits, trained_options
from red_lightning.adapters.file_format import read_record
from red_lightning.adapters.record_checks import method_class
from red_lightning.atomic_files import digest_of
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.errors import UsageError
from red_lightning.generation.generators import open_model


class Candidate(NamedTuple):
    """A model that was found, and is not loaded yet.

    Attributes:
        edits: Its edits, as a folder; None for a model without any.
        record: The contents of their ``edits.json``; empty for a model without any.
        backbone: Where the model without edits is, as a folder or hub id; None for where the edits say.
        options: How it is loaded.
        identity: What tells it from others, as plain values: scores are kept for it.
        trust: Packages whose own methods may be imported.
    """

    edits: Path | None
    record: dict[str, Any]
    backbone: str | None
    options: BackboneOptions
    identity: dict[str, Any]
    trust: Sequence[str] = ()

    def load(self, device: str | None = None) -> Edited:
        """Load it.

        Args:
            device: Where it goes; None for a GPU if there is one.
        """
        return open_model(
            str(self.edits) if self.edits else None, self.backbone, None, self.options, device, trust=self.trust
        )

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return load_tokenizer(*find_backbone(self.record, self.backbone, self.options))


def find_model(
    model: str,
    backbone: str | None,
    revision: str | None,
    options: BackboneOptions | None,
    trust: Sequence[str] | None = (),
) -> Candidate:
    """Find a model, and refuse what cannot be scored before anything large is read.

    Args:
        model: A run's folder, its ``edits`` folder, a folder with a model, or a hub repository of edits or of a model.
        backbone: Where the backbone of edits is now; None for where they say.
        revision: Branch, tag or commit of the hub repository.
        options: How the model is loaded; the dtype and the quantization that they leave open are those of the training,
            and for a model without edits the dtype is that of its files.
        trust: Packages whose own methods may be imported, when it is loaded: their code runs. None for
            a model that is identified and not loaded.

    Raises:
        UsageError: There is no such model, it writes no texts, or nobody trusts its method.
    """
    if not has_edits(model, revision):
        if backbone is not None:
            raise UsageError(f"'{model}' is a model without edits, so that it has no other backbone; leave it out")
        source, options = find_unedited(folder_first(model), revision, options)
        state = {"commit": source.commit} if source.commit else {"weights": _state(Path(source.place))}
        return Candidate(None, {}, source.name, options, {"model": model, **state, **options.format})
    folder = find_edits(model, revision)
    record = read_record(folder)
    if record.get("head") or record.get("task") == "Classification":
        raise UsageError(f"the edits in '{folder}' are a classifier's, but tasks are scored with a model that writes")
    if trust is not None:
        method_class(record, folder, trust)
    learned = digest_of(folder / "edits.safetensors")
    base = backbone or record["backbone"]
    options = trained_options(record, backbone, options)
    identity = {"model": model, "edits": learned, "backbone": base, "commit": options.revision, **options.format}
    return Candidate(folder, record, backbone, options, identity, trust or ())


def _state(folder: Path) -> str:
    """What changes when a folder's weights are written anew; to read gigabytes again would take longer than a task."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
