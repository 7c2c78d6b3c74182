"""Validate the record of an adapter. :mod:`red_lightning.adapters.file_format` explains its fields."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

import red_lightning.methods as methods
from red_lightning.adapters.extensions import is_trusted, own_class, own_path, rebuilt, wrong_classes
from red_lightning.backbones.fingerprint import difference, fingerprint, summary
from red_lightning.backbones.quantization import Quantization, backbone_of
from red_lightning.errors import UsageError, nearest
from red_lightning.families import Pooling

REQUIRED = ("format", "backbone", "fingerprint", "method")
"""The fields without which edits are of no use."""

FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "backbone": (str,),
    "commit": (str, type(None)),
    "fingerprint": (str,),
    "architecture": (dict,),
    "dtype": (str,),
    "quantization": (str, type(None)),
    "method": (dict,),
    "classes": (dict,),
    "virtual_tokens": (int,),
    "task": (str, type(None)),
    "labels": (list, type(None)),
    "head": (dict, type(None)),
    "targets": (str,),
    "max_new_tokens": (int,),
    "decoding": (dict,),
    "encoding": (dict,),
    "sha256": (str,),
    "target_scale": (dict,),
    "scores": (dict,),
    "unreadable": (int,),
    "seed": (int, type(None)),
    "trainable_parameters": (int,),
    "head_parameters": (int,),
    "held_out_by": (dict,),
    "data": (dict,),
    "imported": (dict,),
    "combined": (dict,),
    "libraries": (dict,),
}
"""Every field of format 1, and what it may be once read from JSON."""

UNRECORDED = (
    '; a method of your own from before import paths were recorded needs "classes": {"method": '
    '"my_package.module.Name"} in edits.json'
)
"""What is said of a method that is not the package's, and whose record does not say where it is."""

KINDS = {int: "a whole number", str: "a text", dict: "an object", list: "a list", type(None): "null"}

LARGEST_RECORD = 16 << 20
"""How many bytes ``edits.json`` may have."""

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
LONGEST_NAME = 300  # characters


def wrong_field(record: Mapping[str, Any]) -> str | None:
    """What is wrong with the contents of ``edits.json``, in words; None if nothing is.

    Fields that are not known are not looked at.
    """
    for name in REQUIRED:
        if record.get(name) in (None, ""):
            return f"edits.json does not say the {name}"
    for name, kinds in FIELDS.items():
        # true is an int for Python, but not in JSON
        if name in record and (not isinstance(record[name], kinds) or isinstance(record[name], bool)):
            return f"the {name} in edits.json must be {' or '.join(KINDS[kind] for kind in kinds)}"
        if isinstance(record.get(name), str) and not record[name].isprintable():
            return f"the {name} in edits.json holds a character that cannot be printed"
    if not isinstance(record["method"].get("name"), str):
        return "edits.json names no method"
    if record.get("virtual_tokens", 0) < 0:
        return "the virtual_tokens in edits.json must not be negative"
    if reason := wrong_classes(record.get("classes") or {}):
        return reason
    if not all(isinstance(label, str) for label in record.get("labels") or ()):
        return "the labels in edits.json must be texts"
    if record.get("quantization") not in (None, *get_args(Quantization)):
        return f"edits.json names the unknown quantization '{record['quantization'][:40]}'"
    return _wrong_head(record["head"]) if record.get("head") else None


def _wrong_head(head: Mapping[str, Any]) -> str | None:
    if head.get("pooling") not in get_args(Pooling):
        return f"the head in edits.json needs a pooling, one of {', '.join(get_args(Pooling))}"
    dropout = head.get("dropout", 0.5)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        return "the dropout of the head in edits.json must be a number between 0 and 1"
    return None


def wrong_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the contents of ``edits.safetensors``, in words; None if nothing is."""
    for name, tensor in tensors.items():
        if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
            return f"{name[:60]!r} is no name of a parameter"
        if reason := wrong_values(tensor):
            return f"'{name}' {reason}"
    return None


def wrong_values(tensor: Tensor) -> str | None:
    """Why numbers cannot have been learned, in words that follow their name; None if they can."""
    if tensor.dtype not in FLOATS:
        return f"is of {str(tensor.dtype).removeprefix('torch.')}, not of float32"
    if not torch.isfinite(tensor).all():
        return "holds NaN or infinite numbers"
    return None


def wrong_head(head: Mapping[str, Tensor], record: Mapping[str, Any]) -> str | None:
    """What is wrong with a classification head, in words; None if nothing is, or there is none.

    Args:
        head: Its tensors, such as ``out_proj.weight``.
        record: The contents of ``edits.json``.
    """
    if not head and not record.get("head"):
        return None
    if not head or not record.get("head"):
        return "edits.safetensors and edits.json must both have a classification head, or neither"
    shapes = {name: tuple(tensor.shape) for name, tensor in head.items()}
    shape = shapes.get("out_proj.weight", ())
    outputs, width = shape if len(shape) == 2 else (0, 0)
    expected: dict[str, tuple[int, ...]] = {"out_proj.weight": (outputs, width), "out_proj.bias": (outputs,)}
    if "dense.weight" in shapes:
        expected |= {"dense.weight": (width, width), "dense.bias": (width,)}
    if shapes != expected or not outputs:
        return "the head's tensors do not fit one another"
    labels = record.get("labels")
    if labels is not None and outputs != max(len(labels), 1):
        return f"the head tells {outputs} classes, of {len(labels)} labels"
    return None


def trained_part(backbone: nn.Module, record: Mapping[str, Any], folder: str | Path) -> nn.Module:
    """The part of a backbone that edits were learned on: the whole, or the hidden layers inside a head.

    Args:
        backbone: The pretrained model, unedited.
        record: The contents of ``edits.json``.
        folder: Where it is from, for complaints.

    Raises:
        UsageError: They were learned on another backbone.
    """
    for part in (backbone, getattr(backbone, "base_model", backbone)):
        if record["fingerprint"] == fingerprint(part):
            return part
    raise UsageError(f"the edits in '{folder}' belong to another backbone: {_other(record, backbone)}")


def _other(record: Mapping[str, Any], backbone: nn.Module) -> str:
    """The backbone that a record names, and in what the given one differs from it, as far as that is known."""
    theirs, ours = record.get("architecture", {}), summary(getattr(backbone, "config", None))
    if differs := difference(theirs, ours):
        return f"{backbone_of(record)}, whose {differs}"
    same = ", which has this architecture, but other weights or another auto class" if theirs else ""
    return f"{backbone_of(record)}{same}"


def method_class(record: Mapping[str, Any], folder: str | Path, trust: Sequence[str] = ()) -> type[methods.Method]:
    """The class of the method that edits were learned with; the arguments are those of :func:`method_of`."""
    if own := own_class(record, f"{folder}/edits.json", trust):
        return own
    name, known = str(record["method"]["name"]), methods.shipped()
    if name not in known:
        said = f"the edits in '{folder}' need the unknown method '{name[:40]}': {nearest(name[:40], known)}"
        raise UsageError(said if name in methods.__all__ else f"{said}{UNRECORDED}")
    return known[name]


def known_class(
    record: Mapping[str, Any], folder: str | Path, trust: Sequence[str] = ()
) -> type[methods.Method] | None:
    """Return the class of the method without asking for consent; None for an unknown or untrusted class.

    The arguments are those of :func:`method_of`.
    """
    path = own_path(record, "method")
    known = is_trusted(path, trust) if path else (record.get("method") or {}).get("name") in methods.shipped()
    return method_class(record, folder, trust) if known else None


def method_of(record: Mapping[str, Any], folder: str | Path, trust: Sequence[str] = ()) -> methods.Method:
    """The method that edits were learned with.

    Args:
        record: The contents of ``edits.json``.
        folder: Where it is from, for complaints.
        trust: Packages whose own methods may be imported.

    Raises:
        UsageError: There is no such method, nobody has consented to import it, or it has no such options.
    """
    klass = method_class(record, folder, trust)
    options = {name: value for name, value in record["method"].items() if name != "name"}
    if own_path(record, "method"):
        return rebuilt(klass, options, f"{folder}/edits.json")
    try:
        return klass(**options)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the edits in '{folder}' are damaged: their method has odd options ({error})") from error


def virtual_tokens_of(record: Mapping[str, Any], folder: str | Path) -> int:
    """How many positions the method of edits takes up before each text; a user's own method is not imported for it."""
    if not record or "method" not in record:
        return 0
    if own_path(record, "method"):
        return int(record.get("virtual_tokens", 0))
    return method_of(record, folder).virtual_tokens
