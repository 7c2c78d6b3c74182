"""Load a backbone with its adapter: :func:`load`."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor, nn

from red_lightning import hub
from red_lightning.adapters.attaching import place_edits
from red_lightning.adapters.file_format import FILES, HEAD, build_head, read_edits
from red_lightning.adapters.record_checks import method_class
from red_lightning.atomic_files import new_folder
from red_lightning.backbones import loading
from red_lightning.backbones.classification_head import ClassificationHead
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.backbones.quantization import Dtype
from red_lightning.backbones.tokenizer import load_tokenizer
from red_lightning.efficiency.preparation import prepared
from red_lightning.errors import UsageError, enough_memory, first_line


class Edited(NamedTuple):
    """An edited model, in evaluation mode.

    Attributes:
        backbone: The pretrained model with the edits attached: hidden states for a classifier, else it writes text.
        tokenizer: Its tokenizer.
        head: What tells a classifier's classes apart; None for a model that writes text, or if the head is not among
            the edits (of imported files).
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
    trust: Sequence[str] = (),
) -> Edited:
    """Load edits and the backbone that they were learned on.

    For example, of a model that writes text; a writer puts prompts to it as in training, and decodes as its run did::

        model = red_lightning.load("runs/mine")
        print(red_lightning.generation.Writer(model).write(["name[Aromi], food[Chinese]"]))

    Args:
        edits: A run's folder, its ``edits`` folder, or a hub repository of edits.
        backbone: Where the backbone is now, as a folder or hub id; None for where ``edits.json`` says.
        revision: Branch, tag or commit of the edits' hub repository.
        options: How the backbone is loaded; the commit, the dtype and the quantization that they leave open are those
            that it was trained with.
        device: Where the model goes, such as ``cuda``.
        trust: Packages whose own methods may be imported, such as ``["my_package"]``: their code runs.

    Returns:
        The edited model, its tokenizer, its head and its record.

    Raises:
        UsageError: There are no such edits, they are damaged, or they belong to another backbone; nobody trusts their
            method; or there is no such device.
    """
    usable_device(device)
    folder = find_edits(edits, revision)
    tensors, record = read_edits(folder)
    source, options = find_backbone(record, backbone, options)
    require_head_width(tensors, source, folder)
    method_class(record, folder, trust)  # which may be refused, before the weights are read
    model = load_backbone(source, options, record)
    place_edits(model, tensors, record, folder, trust)
    move(model, options, device)
    head = build_head(tensors, record)
    tokenizer = load_tokenizer(source, options, needs_eos=record.get("task") != "Classification" and head is None)
    _stop_as_trained(model, tokenizer, record)
    return Edited(model.eval(), tokenizer, head and head.to(device), record)


def _stop_as_trained(model: Any, tokenizer: Any, record: Mapping[str, Any]) -> None:
    """Let the model's own ``generate`` stop where its answers end: a chat template has a token for that."""
    from red_lightning.data.prompt_templates import trained_stop_ids  # which imports lightning, and takes seconds

    if record.get("task") == "InstructionTuning" and (record.get("data") or {}).get("template") == "chat":
        own = model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [own] if own is not None else []
        model.generation_config.eos_token_id = [*dict.fromkeys([*trained_stop_ids(record, tokenizer), *own])]
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def usable_device(device: str) -> str:
    """The device, if tensors can be put on it.

    Raises:
        UsageError: They cannot, or torch knows no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"the device '{device}' cannot be used: {first_line(error)}; leave --device out") from error
    return device


def move(model: nn.Module, options: BackboneOptions, device: str) -> None:
    """Put a model on a device; bitsandbytes places quantized weights itself.

    Raises:
        UsageError: The model does not fit in its memory.
    """
    if options.quantization is None:
        with enough_memory(f"the model is put on '{device}'", "give another --device, or a shorter dtype"):
            model.to(device)


def require_head_width(tensors: Mapping[str, Tensor], source: loading.Source, folder: Path) -> None:
    """Refuse a classification head (if there is one) that does not fit the backbone.

    Args:
        tensors: What was learned, by site name.
        source: Where the backbone is.
        folder: Where the tensors are from, for complaints.

    Raises:
        UsageError: The head is of another width.
    """
    weight = tensors.get(f"{HEAD}out_proj.weight")
    if weight is not None and weight.shape[1] != source.config.hidden_size:
        raise UsageError(f"the edits in '{folder}' are damaged: the head is not as wide as the backbone")


def folder_first(name: str) -> str:
    """What edits or a model are called: a folder comes before the shipped backbone of its name."""
    return f"./{name}" if name in hub.SHIPPED and Path(name).is_dir() else name


def find_edits(edits: str | Path, revision: str | None = None) -> Path:
    """The folder that holds edits: a given one, its ``edits`` folder, or that of a hub repository, downloaded.

    Raises:
        UsageError: There is neither such a folder nor such a repository.
    """
    folder = hub.local_folder(folder_first(str(edits)))
    if folder is not None:
        return folder / "edits" if (folder / "edits").is_dir() else folder
    local_only = hub.offline()
    with hub.explained("set of edits", str(edits), revision):
        paths = [hf_hub_download(str(edits), name, revision=revision, local_files_only=local_only) for name in FILES]
    return Path(paths[0]).parent


def copy_edits(edits: str | Path, output: str | Path, revision: str | None = None) -> None:
    """Copy edits, after reading them whole.

    Args:
        edits: A run's folder, its ``edits`` folder, or a hub repository of edits.
        output: The folder to write, which must not exist or be empty. It appears when it is complete.
        revision: Branch, tag or commit of the edits' hub repository.

    Raises:
        UsageError: The edits cannot be read, or the output holds something or cannot be written.
    """
    folder = find_edits(edits, revision)
    read_edits(folder)
    with new_folder(Path(output), "the edits") as part:
        for name in FILES:
            shutil.copyfile(folder / name, part / name)


def has_edits(place: str, revision: str | None = None) -> bool:
    """Whether a folder or hub repository holds edits, and not a model.

    Args:
        place: A run's folder, its ``edits`` folder, a folder with a model, or a hub repository of either.
        revision: Branch, tag or commit of the hub repository.

    Raises:
        UsageError: There is no such place.
    """
    folder = hub.local_folder(folder_first(place))
    if folder is not None:
        return any((folder / name).exists() for name in ("edits", *FILES)) or not (folder / "config.json").is_file()
    local_only = hub.offline()
    with hub.explained("model", place, revision):
        try:
            hf_hub_download(place, FILES[1], revision=revision, local_files_only=local_only)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and not local_only:  # the hub has stopped answering
                raise
            return False
    return True


def trained_options(
    record: Mapping[str, Any], backbone: str | None = None, options: BackboneOptions | None = None
) -> BackboneOptions:
    """How the backbone of edits is loaded; the arguments are those of :func:`load`."""
    options = options or BackboneOptions()
    dtype, quantization = options.dtype or record.get("dtype"), options.quantization or record.get("quantization")
    options = replace(options, dtype=dtype if dtype in get_args(Dtype) else "float32", quantization=quantization)
    if backbone is None and options.revision is None:
        options = replace(options, revision=record.get("commit"))
    return options


def find_backbone(
    record: Mapping[str, Any], backbone: str | None = None, options: BackboneOptions | None = None
) -> tuple[loading.Source, BackboneOptions]:
    """The backbone that edits were learned on, and how it is loaded; the arguments are those of :func:`load`."""
    options = trained_options(record, backbone, options)
    return loading.find(backbone or record["backbone"], options), options


def find_unedited(
    model: str, revision: str | None = None, options: BackboneOptions | None = None
) -> tuple[loading.Source, BackboneOptions]:
    """A model without edits, and how it is loaded: in the number format of its files, unless the options say another.

    Args:
        model: A folder, or a hub id.
        revision: Branch, tag or commit of the hub repository; None for that of the options.
        options: How it is loaded.

    Raises:
        UsageError: There is no such model.
    """
    options = options or BackboneOptions()
    options = replace(options, revision=revision or options.revision)
    source = loading.find(model, options)
    return source, replace(options, dtype=options.dtype or source.dtype)


def load_backbone(
    source: loading.Source, options: BackboneOptions, record: Mapping[str, Any], meta: bool = False
) -> nn.Module:
    """The pretrained model that edits were learned on, unedited; with ``meta`` without weights."""
    head = record.get("head") or {}
    if head or record.get("task") == "Classification":
        keep_pooler = bool(head) and head["pooling"] == "pooler"
        return prepared(loading.load_encoder, source, options, keep_pooler, meta=meta)
    return prepared(loading.load_generator, source, options, meta=meta)
