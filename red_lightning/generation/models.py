"""From what a user names to a model that writes: a run's edits, or a model without edits."""

from dataclasses import replace
from typing import Any

import torch

from red_lightning.artifacts.checks import trained_part
from red_lightning.artifacts.edits import method_of, read_edits
from red_lightning.artifacts.loading import Edited, find_backbone, find_edits, has_edits, load, usable_device
from red_lightning.backbones import loading
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.errors import UsageError


def open_model(
    edits: str | None,
    backbone: str | None = None,
    revision: str | None = None,
    options: BackboneOptions | None = None,
    device: str | None = None,
    edited: bool = True,
) -> Edited:
    """Load a model that writes texts.

    Args:
        edits: A run's folder, its ``edits`` folder, a folder with a model without edits (a merged one, say), or a
            hub repository of either; None for the backbone alone.
        backbone: Where the backbone is, as a folder or hub id; None for where the edits say.
        revision: Branch, tag or commit of that hub repository.
        options: How the backbone is loaded; None for the dtype, the quantisation and the commit of the training.
        device: Where the model goes; None for a GPU if there is one.
        edited: Attach the edits; else their backbone is as it was, and its record still says how it is used.

    Returns:
        The model in evaluation mode; its record is empty where there are no edits.

    Raises:
        UsageError: There is no such model, or the backbone is not that of the edits.
    """
    device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    record = read_record(edits, revision)
    if not record:
        backbone = edits or backbone
        options = replace(options or BackboneOptions(), revision=revision) if revision else options
    if backbone is None and not record:
        raise UsageError("no model is given: name a run's edits, or a model without edits by --backbone")
    if edits is not None and record and edited:
        return load(edits, backbone, revision, options, device)
    source, options = find_backbone({"backbone": backbone, **record}, backbone, options)
    model = loading.load_generator(source, options)
    if record:
        trained_part(model, record, str(edits))
        method_of(record, str(edits))
    if options.quantization is None:  # bitsandbytes places quantised weights itself
        model.to(device)
    return Edited(model.eval(), load_tokenizer(source, options), None, record)


def read_record(edits: str | None, revision: str | None = None) -> dict[str, Any]:
    """The contents of ``edits.json``; empty for a model without edits. The arguments are those of :func:`open_model`.

    Raises:
        UsageError: There is no such model.
    """
    if edits is None or not has_edits(edits, revision):
        return {}
    return read_edits(find_edits(edits, revision))[1]
