"""The files of an adapter, format 1: ``edits.safetensors`` (tensors) and ``edits.json`` (the record).

``edits.safetensors`` holds one float32 tensor for each trained parameter, under its name in the backbone without the
editor's own: RED's ``transformer.h.0.mlp.c_proj.scaling`` and ``.bias``, of shape (width,), edit the output of the
module ``transformer.h.0.mlp.c_proj`` (of a part of its columns, where the method's sites say so). A classifier's head
is ``head.out_proj.weight`` of shape (classes, width) and ``.bias``, and if it is hidden ``head.dense.weight`` and
``.bias``. The metadata are ``{"format": "pt"}``. A name is at most 300 letters, digits, ``_``, ``-`` and dots between.

``edits.json`` is one JSON object in UTF-8, of at most 16 MiB. The first four fields are required; a field that is not
listed is ignored, and a new one does not raise the format.

    ``format``                int; 1. Readers refuse a newer one.
    ``backbone``              text; hub id or folder of the pretrained model. Read by :func:`red_lightning.load`.
    ``fingerprint``           text; the backbone's :mod:`~red_lightning.backbones.fingerprint`: another is refused.
    ``method``                object; ``name`` (of a class of :mod:`red_lightning.methods`) and its options: applied.
    ``commit``                text or null; the backbone's commit on the hub, which ``load`` asks for.
    ``architecture``          object; the backbone's ``model_type``, ``hidden_size``, ``num_hidden_layers`` and
                              ``vocab_size``: to say in what another backbone differs.
    ``dtype``                 text; the number format that the backbone was trained in, such as ``bfloat16``.
    ``quantization``          text or null; ``nf4``, ``int8`` and so on if it was quantized: ``load`` does so too.
    ``task``                  text or null; a class of :mod:`red_lightning.tasks`, or the one that a user's own task
                              extends (its own name if it extends none): how the model is used.
    ``classes``               object; the import path of a user's own ``method``, ``task`` and ``data`` module. That
                              of the method is imported, but only with consent (:mod:`.extensions`).
    ``virtual_tokens``        int; how many positions a user's own method takes up before each text.
    ``labels``                list of texts or null; the classes in the order of their numbers, empty for a number.
    ``head``                  object or null; a classifier's ``pooling``, ``hidden`` and ``dropout``: built again.
    ``target_scale``          object; ``mean`` and ``deviation`` of the numbers that were learned. The head undoes them.
    ``targets``               text; what TextToTextClassification writes for a class: its ``number`` or its ``name``.
    ``max_new_tokens``        int; how many tokens it writes at most.
    ``decoding``              object; how a model that writes text was asked to: the fields of
                              :class:`red_lightning.generation.Decoding`.
    ``scores``                object; the test score (or null) by metric.
    ``unreadable``            int; how many of TextToTextClassification's test outputs were no label.
    ``seed``                  int or null; the run's ``seed_everything``.
    ``trainable_parameters``  int; how many numbers the method trained.
    ``head_parameters``       int; how many numbers the head has.
    ``held_out_by``           object; by which options of the data rows were held out.
    ``encoding``              object; how rows became tokens: the template, its settings, and maximum lengths.
    ``data``                  object; the data module's ``class`` and where its rows came from.
    ``imported``              object; of an imported file, its ``file`` name and ``sha256``, and the ``classifier``'s.
    ``combined``              object; of edits that were made of others, ``how``, and their records as ``sources``.
    ``sha256``                text; that of ``edits.safetensors``, which is compared. Missing in files of 0.1.0.
    ``libraries``             object; version by package, of those that wrote the file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from red_lightning.adapters.record_checks import (
    LARGEST_RECORD,
    wrong_field,
    wrong_head,
    wrong_tensor,
)
from red_lightning.atomic_files import digest_of, write_whole
from red_lightning.backbones.classification_head import ClassificationHead
from red_lightning.editing.surgery import EDITOR
from red_lightning.errors import UsageError, first_line

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
    content = save(tensors, metadata={"format": "pt"})
    digest = hashlib.sha256(content).hexdigest()
    description = {"format": FORMAT, **record, "libraries": libraries, "sha256": digest}
    write_whole(folder / "edits.safetensors", content)
    write_whole(folder / "edits.json", json.dumps(description, indent=2) + "\n")


def read_edits(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what was learned.

    Returns:
        The tensors by site name, and the contents of ``edits.json``.

    Raises:
        UsageError: A file is missing, damaged, or of a newer format; or it holds NaN, infinite numbers, something else
            than floats, names that no parameter has, a field of another type than the format's, or half a head.
    """
    record = read_record(folder)
    with _readable(folder):
        file = Path(folder, "edits.safetensors")
        tensors = load_file(file)
        if reason := wrong_tensor(tensors) or wrong_head(head_of(tensors), record):
            raise ValueError(reason)
        if "sha256" in record and record["sha256"] != digest_of(file):
            raise ValueError(
                "edits.safetensors has another SHA-256 than edits.json says (if it was changed on purpose, remove "
                "'sha256' there)"
            )
    return tensors, record


def read_record(folder: str | Path) -> dict[str, Any]:
    """What :func:`read_edits` reads, but for the tensors, which may be gigabytes: the contents of ``edits.json``."""
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise UsageError(f"the folder '{folder}' holds no edits: it has no {name}")
    with _readable(folder):
        if (folder / "edits.json").stat().st_size > LARGEST_RECORD:
            raise ValueError(f"edits.json is larger than {LARGEST_RECORD >> 20} MiB")
        record = json.loads((folder / "edits.json").read_text(encoding="utf-8"))
        if not isinstance(record, dict) or type(record.get("format")) is not int or record["format"] < 1:
            raise ValueError("edits.json does not say its format")
        if record["format"] > FORMAT:
            raise UsageError(f"the edits in '{folder}' have the newer format {record['format']}; update red-lightning")
        if reason := wrong_field(record):
            raise ValueError(reason)
    return record


@contextmanager
def _readable(folder: str | Path) -> Iterator[None]:
    """Turn what goes wrong when edits are read into one sentence."""
    try:
        yield
    except (SafetensorError, ValueError, RecursionError) as error:  # what is no UTF-8 or JSON is a ValueError
        raise UsageError(f"the edits in '{folder}' are damaged: {first_line(error)}") from error
    except OSError as error:
        raise UsageError(f"the edits in '{folder}' cannot be read: {error.strerror or first_line(error)}") from error


def head_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a classification head among those of edits, by their name in it; empty if there is none."""
    return {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}


def load_head(folder: str | Path) -> ClassificationHead:
    """Return the classification head that an adapter holds, in evaluation mode.

    Its input is the edited backbone's output after
    :func:`~red_lightning.backbones.classification_head.pool`, with the ``pooling``
    that ``edits.json`` names under ``head``, as it names the ``labels``.

    Raises:
        UsageError: The files cannot be read, or there is no head among them.
    """
    head = build_head(*read_edits(folder))
    if head is None:
        raise UsageError(f"the edits in '{folder}' have no classification head")
    return head


def build_head(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> ClassificationHead | None:
    """What :func:`load_head` gives, of edits that :func:`read_edits` has read; None if they have no head."""
    weights = head_of(tensors)
    if not weights:
        return None
    outputs, width = weights["out_proj.weight"].shape
    head = ClassificationHead(width, outputs, "dense.weight" in weights, record["head"].get("dropout", 0.5))
    head.load_state_dict(weights)
    return head.eval()
