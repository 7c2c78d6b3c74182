"""The edits on disk: ``edits.safetensors`` (what was learned) and ``edits.json`` (what it belongs to)."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import red_lightning.methods as methods
from red_lightning.backbones.loading import fingerprint
from red_lightning.backbones.surgery import EDITOR
from red_lightning.errors import UsageError, nearest

FORMAT = 1
"""Version of the format; raised when older readers could misread a file."""


def site_name(parameter: str) -> str:
    """The name under which a backbone's parameter is stored: that of the site, without the editor's own name."""
    return parameter.replace(f".{EDITOR}.", ".")


def save_edits(folder: Path, learned: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write what was learned.

    Args:
        folder: Where ``edits.safetensors`` and ``edits.json`` go; created if need be.
        learned: The trained tensors by their parameter name in the backbone.
        record: ``backbone``, ``commit``, ``fingerprint``, ``method`` (``name`` and options), ``task``, and anything
            else that is plain JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {site_name(name): tensor.detach().cpu().contiguous() for name, tensor in learned.items()}
    libraries = {name: version(name) for name in ("red-lightning", "torch", "transformers", "lightning")}
    description = {"format": FORMAT, **record, "libraries": libraries}
    (folder / "edits.safetensors.tmp").write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "edits.safetensors.tmp").replace(folder / "edits.safetensors")
    (folder / "edits.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_edits(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what was learned.

    Returns:
        The tensors by site name, and the contents of ``edits.json``.

    Raises:
        UsageError: A file is missing, damaged, or of a newer format.
    """
    folder = Path(folder)
    for name in ("edits.safetensors", "edits.json"):
        if not (folder / name).is_file():
            raise UsageError(f"the folder '{folder}' holds no edits: it has no {name}")
    try:
        record = json.loads((folder / "edits.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "edits.safetensors")
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"the edits in '{folder}' are damaged: {error}") from error
    if record.get("format", 0) > FORMAT:
        raise UsageError(f"the edits in '{folder}' have the newer format {record['format']}; update red-lightning")
    return tensors, record


def apply_edits(backbone: nn.Module, folder: str | Path) -> dict[str, nn.Parameter]:
    """Attach edits that a run left behind to the backbone they were learned on.

    Args:
        backbone: The pretrained model, unedited.
        folder: The ``edits/`` folder of a run.

    Returns:
        The edited parameters, by their name in the backbone.

    Raises:
        UsageError: The files cannot be read, or they belong to another backbone.
    """
    tensors, record = read_edits(folder)
    if record["fingerprint"] != fingerprint(backbone):
        raise UsageError(f"the edits in '{folder}' belong to another backbone: '{record['backbone']}'")
    options = dict(record["method"])
    name = options.pop("name")
    if name not in methods.__all__:
        raise UsageError(f"the edits in '{folder}' need the unknown method '{name}': {nearest(name, methods.__all__)}")
    parameters = getattr(methods, name)(**options).apply(backbone)
    for key, parameter in parameters.items():
        stored = tensors.get(site_name(key))
        if stored is None or stored.shape != parameter.shape:
            raise UsageError(f"the edits in '{folder}' do not fit: '{site_name(key)}' is missing or of another shape")
        parameter.data.copy_(stored)
    return parameters
