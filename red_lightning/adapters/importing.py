"""Convert the authors' released files to an adapter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from red_lightning.adapters.file_format import HEAD, save_edits
from red_lightning.adapters.released_files import attach_vectors, read_classifier, read_vectors
from red_lightning.atomic_files import digest_of, new_folder, require_new
from red_lightning.backbones import loading
from red_lightning.backbones.fingerprint import fingerprint, summary
from red_lightning.errors import UsageError
from red_lightning.families import record_of


def import_edits(
    vectors: Path,
    backbone: str,
    output: Path,
    classifier: Path | None = None,
    labels: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Turn files that the authors' code wrote into edits.

    Args:
        vectors: ``delta_vector.pth``.
        backbone: Hub id or folder of the pretrained model that it edits.
        output: The folder to write, new or empty.
        classifier: ``classifier.pth``, of an encoder; without it the edits have no head.
        labels: The classes in the order of their numbers, empty for a number; None calls a classifier's 0, 1, 2, ...
        layers: The layers that were edited; None for all of them.
        revision: Branch, tag or commit of the backbone on the hub.

    Returns:
        The record. Its ``task`` is what the authors trained such a backbone for: an encoder and an encoder-decoder to
        classify, GPT-2 to write texts about data, any other decoder to follow instructions.

    Raises:
        UsageError: A file is damaged or asks to run code, it belongs to another backbone, or the folder holds
            something.
    """
    require_new(output, "the edits")
    released = read_vectors(vectors)
    # half the memory: the fingerprint is of signs, which no rounding changes
    options = loading.BackboneOptions(revision=revision, dtype="bfloat16")
    source = loading.find(backbone, options)
    task = _task(source.config)
    head = _read_head(classifier, source, task)
    about = _about(task, None if labels is None else list(labels), head)
    encodes = task == "Classification"
    model = loading.load_encoder(source, options, False) if encodes else loading.load_generator(source, options)
    digest = fingerprint(model)  # of the unedited backbone
    method, learned = attach_vectors(model, released, vectors, layers)
    record = {
        "task": task,
        "backbone": source.name,
        "commit": source.commit,
        "fingerprint": digest,
        "architecture": summary(source.config),
        "quantization": None,
        "method": method.describe(),
        **about,
        "trainable_parameters": sum(parameter.numel() for parameter in learned.values()),
        "imported": {**_digest(vectors), **({"classifier": _digest(classifier)} if classifier else {})},
    }
    with new_folder(output, "the edits") as folder:
        save_edits(folder, {**learned, **{f"{HEAD}{name}": tensor for name, tensor in head.items()}}, record)
    return record


def _task(config: Any) -> str:
    if config.is_encoder_decoder:
        return "TextToTextClassification"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "Classification"
    record = record_of(config)
    return record.released_task if record and record.released_task else "InstructionTuning"


def _read_head(classifier: Path | None, source: loading.Source, task: str) -> dict[str, Tensor]:
    if classifier is None:
        return {}
    if task != "Classification":
        raise UsageError(f"a classifier belongs to an encoder, but '{source.name}' writes text; leave it out")
    return read_classifier(classifier, source.config.hidden_size)


def _about(task: str, labels: list[str] | None, head: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the record says of a task: the labels, and how they are told apart."""
    if task == "TextToTextClassification":  # T5 writes the number of the class, in at most 5 tokens
        return {"labels": labels, "targets": "number", "max_new_tokens": 5}
    if task != "Classification":
        if labels is not None:
            raise UsageError(
                "labels are for a classifier or an encoder-decoder, but this backbone generates free text; omit them"
            )
        return {}
    if not head:
        return {"labels": labels, "head": None}
    outputs = len(head["out_proj.bias"])
    if labels is None:
        labels = [str(number) for number in range(outputs)] if outputs > 1 else []
    if max(len(labels), 1) != outputs:
        raise UsageError(f"the classifier tells {outputs} classes, but {len(labels)} labels are given: {labels}")
    options = {"pooling": "first", "hidden": True, "dropout": 0.5}  # the head of the authors' code
    return {"labels": labels, "head": options, "head_parameters": sum(tensor.numel() for tensor in head.values())}


def _digest(file: Path) -> dict[str, str]:
    return {"file": file.name, "sha256": digest_of(file)}
