"""From what a run left behind to an edited model: :func:`load`."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from torch import nn

from red_lightning import hub
from red_lightning.artifacts.edits import FILES, apply_edits, load_head, read_edits
from red_lightning.backbones import loading
from red_lightning.backbones.head import ClassificationHead
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.tokenizer import load_tokenizer


class Edited(NamedTuple):
    """An edited model, in evaluation mode.

    Attributes:
        backbone: The pretrained model with the edits attached: hidden states for a classifier, else it writes text.
        tokenizer: Its tokenizer.
        head: What tells a classifier's classes apart; None for a model that writes text.
        record: The contents of ``edits.json``.
    """

    backbone: Any
    tokenizer: Any
    head: ClassificationHead | None
    record: dict[str, Any]


def load(
    edits: str | Path,
    backbone: str | None = None,
    revision: str | None = None,
    options: BackboneOptions | None = None,
    device: str = "cpu",
) -> Edited:
    """Load edits and the backbone that they were learned on.

    For example, of a model that writes text::

        backbone, tokenizer, head, record = red_lightning.load("runs/mine")
        inputs = tokenizer(["name[Aromi] food[Chinese]"], return_tensors="pt")
        print(tokenizer.batch_decode(backbone.generate(**inputs)))

    Args:
        edits: A run's folder, its ``edits`` folder, or a hub repository of edits.
        backbone: Where the backbone is now, as a folder or hub id; None for where ``edits.json`` says.
        revision: Branch, tag or commit of the edits' hub repository.
        options: How the backbone is loaded; None for the commit and the quantisation that it was trained with, and
            float32.
        device: Where the model goes, such as ``cuda``.

    Returns:
        The edited model, its tokenizer, its head and its record.

    Raises:
        UsageError: There are no such edits, they are damaged, or they belong to another backbone.
    """
    folder = find_edits(edits, revision)
    _, record = read_edits(folder)
    options = options or BackboneOptions()
    options = replace(options, quantization=options.quantization or record.get("quantization"))
    if backbone is None and options.revision is None:
        options = replace(options, revision=record.get("commit"))
    source = loading.find(backbone or record["backbone"], options)
    model = _load_backbone(source, options, record)
    apply_edits(model, folder)
    if options.quantization is None:  # bitsandbytes places quantised weights itself
        model.to(device)
    head = load_head(folder).to(device) if record.get("head") else None
    tokenizer = load_tokenizer(source, options, needs_eos=head is None)
    return Edited(model.eval(), tokenizer, head, record)


def find_edits(edits: str | Path, revision: str | None = None) -> Path:
    """The folder that holds edits: a given one, its ``edits`` folder, or that of a hub repository, downloaded.

    Raises:
        UsageError: There is neither such a folder nor such a repository.
    """
    folder = hub.local_folder(str(edits))
    if folder is not None:
        return folder / "edits" if (folder / "edits").is_dir() else folder
    local_only = hub.offline()
    with hub.explained("edits", str(edits), revision):
        paths = [hf_hub_download(str(edits), name, revision=revision, local_files_only=local_only) for name in FILES]
    return Path(paths[0]).parent


def _load_backbone(source: loading.Source, options: BackboneOptions, record: dict[str, Any]) -> nn.Module:
    if record.get("head"):
        return loading.load_encoder(source, options, keep_pooler=record["head"].get("pooling") == "pooler")
    return loading.load_generator(source, options)
