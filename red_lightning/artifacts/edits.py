"""The edits on disk: ``edits.safetensors`` (what was learned) and ``edits.json`` (what it belongs to)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from inspect import isabstract
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import red_lightning.methods as methods
from red_lightning.artifacts.files import write_whole
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.backbones.head import ClassificationHead
from red_lightning.backbones.quantization import backbone_of
from red_lightning.backbones.surgery import EDITOR
from red_lightning.errors import UsageError, nearest

FORMAT = 1
"""Version of the format; raised when older readers could misread a file."""

FILES = ("edits.safetensors", "edits.json")
"""What edits are made of."""

HEAD = "head."
"""How the names of a classification head's tensors begin."""


def site_name(parameter: str) -> str:
    """The name under which a backbone's parameter is stored: that of the site, without the editor's own name."""
    return parameter.replace(f".{EDITOR}.", ".").removesuffix(f".{EDITOR}")


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
    write_whole(folder / "edits.safetensors", save(tensors, metadata={"format": "pt"}))
    write_whole(folder / "edits.json", json.dumps(description, indent=2) + "\n")


def read_edits(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what was learned.

    Returns:
        The tensors by site name, and the contents of ``edits.json``.

    Raises:
        UsageError: A file is missing, damaged, or of a newer format.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise UsageError(f"the folder '{folder}' holds no edits: it has no {name}")
    try:
        record = json.loads((folder / "edits.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "edits.safetensors")
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"the edits in '{folder}' are damaged: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise UsageError(f"the edits in '{folder}' are damaged: edits.json does not say its format")
    if record["format"] > FORMAT:
        raise UsageError(f"the edits in '{folder}' have the newer format {record['format']}; update red-lightning")
    if lacking := {"backbone", "fingerprint", "method"} - set(record):
        raise UsageError(f"the edits in '{folder}' are damaged: edits.json does not say the {min(lacking)}")
    return tensors, record


def apply_edits(backbone: nn.Module, folder: str | Path) -> dict[str, nn.Parameter]:
    """Attach edits that a run left behind to the backbone they were learned on; :func:`load_head` has its head.

    Args:
        backbone: The pretrained model, unedited. A classifier's edits fit the hidden layers: ``AutoModel``, or any
            model that holds them as its ``base_model``.
        folder: The ``edits/`` folder of a run.

    Returns:
        The edited parameters, by their name in the backbone.

    Raises:
        UsageError: The files cannot be read, or they belong to another backbone.
    """
    tensors, record = read_edits(folder)
    if record["fingerprint"] != fingerprint(backbone):
        backbone = getattr(backbone, "base_model", backbone)  # inside a language-model or classification head
        if record["fingerprint"] != fingerprint(backbone):
            raise UsageError(f"the edits in '{folder}' belong to another backbone: {backbone_of(record)}")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
    method = _method(record, folder)
    parameters = method.apply(backbone)
    wanted = {site_name(key): parameter.shape for key, parameter in parameters.items()}
    stored = {name: tensor.shape for name, tensor in tensors.items()}
    if unfit := {name for name in {*wanted, *stored} if wanted.get(name) != stored.get(name)}:
        with suppress(UsageError):  # what trains the backbone's own weights has not changed them yet
            method.detach(backbone)
        raise UsageError(
            f"the edits in '{folder}' do not fit their method: '{min(unfit)}' is missing, of another shape, or too many"
        )
    for key, parameter in parameters.items():
        parameter.data.copy_(tensors[site_name(key)])
    return parameters


def load_head(folder: str | Path) -> ClassificationHead:
    """The classification head that a run left behind with its edits, in evaluation mode.

    Its input is :func:`red_lightning.backbones.head.pool` of the edited backbone's output, with the ``pooling`` that
    ``edits.json`` names under ``head``, as it names the ``labels``.

    Raises:
        UsageError: The files cannot be read, or there is no head among them.
    """
    tensors, record = read_edits(folder)
    weights = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    if "out_proj.weight" not in weights or not isinstance(record.get("head"), dict):
        raise UsageError(f"the edits in '{folder}' have no classification head")
    outputs, width = weights["out_proj.weight"].shape
    head = ClassificationHead(width, outputs, "dense.weight" in weights, record["head"].get("dropout", 0.5))
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"the edits in '{folder}' are damaged: the head's tensors do not fit one another") from error
    return head.eval()


def _method(record: Mapping[str, Any], folder: str | Path) -> methods.Method:
    """The method that the edits were learned with."""
    every = {name: getattr(methods, name) for name in methods.__all__}
    known = {
        name: value
        for name, value in every.items()
        if isinstance(value, type) and issubclass(value, methods.Method) and not isabstract(value)
    }
    try:
        options = dict(record["method"])
        name = options.pop("name")
        if name in known:
            return known[name](**options)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"the edits in '{folder}' are damaged: edits.json names no method ({error})") from error
    raise UsageError(f"the edits in '{folder}' need the unknown method '{name}': {nearest(name, known)}")
