"""Open the model that a user names: an adapter, or a model without one."""

from collections.abc import Sequence

import torch

from red_lightning.adapters.edited import (
    Edited,
    find_backbone,
    find_edits,
    find_unedited,
    folder_first,
    has_edits,
    load,
    move,
    usable_device,
)
from red_lightning.adapters.extensions import own_path
from red_lightning.adapters.file_format import read_record
from red_lightning.adapters.record_checks import method_of, trained_part
from red_lightning.backbones import loading
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.efficiency.preparation import prepared
from red_lightning.errors import UsageError


def open_model(
    edits: str | None,
    backbone: str | None = None,
    revision: str | None = None,
    options: BackboneOptions | None = None,
    device: str | None = None,
    edited: bool = True,
    weights: bool = True,
    trust: Sequence[str] = (),
) -> Edited:
    """Load a model that writes texts.

    Args:
        edits: A run's folder, its ``edits`` folder, a folder with a model without edits (a merged one, say), or a
            hub repository of either; None for the backbone alone.
        backbone: Where the backbone is, as a folder or hub id; None for where the edits say.
        revision: Branch, tag or commit of that hub repository.
        options: How the backbone is loaded; the dtype, the quantization and the commit that they leave open are those
            of the training, and for a model without edits the dtype is that of its files.
        device: Where the model goes; None for a GPU if there is one.
        edited: Attach the edits; else their backbone is as it was, and its record still says how it is used.
        weights: Load the weights; else the model is unedited and on the meta device: it can read prompts, and no more.
        trust: Packages whose own methods may be imported, if the edits are attached: their code runs.

    Returns:
        The model in evaluation mode; its record is empty where there are no edits.

    Raises:
        UsageError: There is no such model, or the backbone is not that of the edits.
    """
    device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = find_edits(edits, revision) if edits is not None and has_edits(edits, revision) else None
    if folder and edited and weights:
        return load(folder, backbone, None, options, device, trust)
    record = read_record(folder) if folder else {}
    plain = folder_first(edits) if edits else backbone
    if record:
        source, options = find_backbone(record, backbone, options)
    elif plain:
        source, options = find_unedited(plain, revision, options)
    else:
        raise UsageError("no model is given: name a run's edits, or a model without edits by --backbone")
    model = prepared(loading.load_generator, source, options, meta=not weights)
    if record and weights:
        trained_part(model, record, str(edits))
        if not own_path(record, "method"):  # which need not be imported where it is not attached
            method_of(record, str(edits))
    if weights:
        move(model, options, device)
    return Edited(model.eval(), load_tokenizer(source, options), None, record)
