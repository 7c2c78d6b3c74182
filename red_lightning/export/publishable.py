"""Remove local paths from what is published, and collect the training settings and the licence."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import HfApi, hf_hub_download, metadata_load
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from red_lightning import hub
from red_lightning.adapters.record_checks import known_class
from red_lightning.backbones.fingerprint import difference, summary
from red_lightning.backbones.loading import BackboneOptions, find
from red_lightning.errors import UsageError
from red_lightning.methods import shipped

SETTINGS = (
    "learning_rate",
    "optimizer",
    "weight_decay",
    "decay_towards",
    "adam_epsilon",
    "schedule",
    "warmup_steps",
    "warmup_ratio",
    "class_weights",
    "global_batch_size",
    "max_length",
    "max_source_length",
    "max_target_length",
    "template",
    "loss_on",
    "packing",
    "train_size",
    "precision",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_test_batches",
)
"""The options of a run's config that a card tells; any other may be private."""

A_PATH = re.compile(r"file:|~|\.{0,2}/")
"""How a text begins that is a path of this machine."""

FOLDERS = re.compile(r"(?<![\w:/.])(?:~|\.{1,2})?/(?:[^\s'\"/]+/)+")
"""The folders of a path within a text."""


class TrainedBy(NamedTuple):
    """How edits were trained; empty where their run is not beside them.

    Attributes:
        settings: Options by name.
        results: The contents of ``results.json``.
    """

    settings: dict[str, Any]
    results: dict[str, Any]


def published_backbone(record: Mapping[str, Any], backbone: str | None) -> tuple[str, str | None]:
    """The hub id and the commit under which others find the backbone of edits.

    Args:
        record: The contents of ``edits.json``.
        backbone: The hub id where the record names a folder; None if it names an id.

    Raises:
        UsageError: Neither is a hub id, or the repository holds another architecture.
    """
    if backbone is None:
        name, commit = record["backbone"], record.get("commit")
        if name not in hub.SHIPPED and (commit is None or not _is_id(name)):  # only a folder has no commit
            raise UsageError(
                f"the edits know their backbone as the folder '{name}' of this machine; say where others find it with "
                "--backbone and its hub id, such as --backbone FacebookAI/roberta-base"
            )
        return name, commit
    if not _is_id(backbone) or hub.local_folder(backbone) is not None:
        raise UsageError(f"--backbone is '{backbone}', but must be a hub id such as FacebookAI/roberta-base")
    source = find(backbone, BackboneOptions())
    if differs := difference(summary(source.config), record.get("architecture") or {}):
        raise UsageError(f"--backbone '{backbone}' is not what was edited: its {differs}")
    return backbone, source.commit


def public_record(
    record: Mapping[str, Any], backbone: str, commit: str | None, trust: Sequence[str] = ()
) -> dict[str, Any]:
    """A record that names no folder of this machine; of a file, only its name is left.

    Args:
        record: The contents of ``edits.json``.
        backbone: The backbone's hub id.
        commit: Its commit there.
        trust: Packages whose own methods may be imported, for the options that name files.
    """
    public = {**_without_folders(record), "backbone": backbone, "commit": commit}
    method = record.get("method") or {}
    kind = known_class(record, "this adapter", trust)
    for option in (option for each in ([kind] if kind else shipped().values()) for option in each.files):
        if isinstance(method.get(option), str):
            public["method"][option] = Path(method[option]).name
    if public.get("data"):
        public["data"] = _public_data(public["data"], record["data"])
    sources = (record.get("combined") or {}).get("sources")
    if isinstance(sources, list):
        public["combined"]["sources"] = [
            {
                **_without_folders(source),
                "edits": source.get("edits") if source.get("commit") else Path(str(source.get("edits"))).name,
                "record": public_record(source["record"], backbone, commit, trust),
            }
            for source in sources
            if isinstance(source, dict) and isinstance(source.get("record"), dict)
        ]
    return public


def trained_by(folder: Path) -> TrainedBy:
    """How the run was trained whose ``edits`` folder this is.

    Raises:
        UsageError: Its ``config.yaml`` or ``results.json`` is damaged.
    """
    if folder.name != "edits":
        return TrainedBy({}, {})
    config, results = _read(folder.parent / "config.yaml"), _read(folder.parent / "results.json")
    model, data, trainer = (config.get(part) or {} for part in ("model", "data", "trainer"))
    options = {**(model.get("init_args") or {}), **(data.get("init_args") or {}), **trainer}
    settings = {name: options[name] for name in SETTINGS if options.get(name) is not None}
    return TrainedBy(_without_folders(settings), results)


def licence_of(backbone: str, commit: str | None) -> dict[str, str]:
    """The licence of a backbone as its own card on the hub names it; nothing where that is not known.

    Returns:
        ``license`` and, of an uncommon one, ``license_name`` and ``license_link``.
    """
    if backbone in hub.SHIPPED:
        return {}
    try:
        path = hf_hub_download(backbone, "README.md", revision=commit, local_files_only=hub.offline())
        card = metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):  # what the hub refuses is an OSError
        return {}
    said = {name: str(card[name]) for name in ("license", "license_name", "license_link") if card.get(name)}
    if "license" not in said:
        return {}
    if "license_link" in said and "://" not in said["license_link"]:  # a file of the backbone's repository
        said["license_link"] = f"https://huggingface.co/{backbone}/blob/main/{said['license_link']}"
    return said


def _public_data(data: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(files := given.get("files"), dict):
        data = {**data, "files": {split: Path(str(file)).name if file else None for split, file in files.items()}}
    path = given.get("path")
    if isinstance(path, str) and not given.get("commit") and not _is_data_set(path):
        data = {**data, "path": Path(path).name}
    return data


def _is_data_set(path: str) -> bool:
    """Whether everybody finds a data set of this id on the hub."""
    if not _is_id(path) or Path(path).exists() or hub.offline():
        return False
    try:
        return HfApi(token=False).repo_exists(path, repo_type="dataset")
    except (OSError, HTTPError):
        return False


def _is_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _without_folders(value: Any) -> Any:
    """A value of JSON in which paths have become names; labels are never paths."""
    if isinstance(value, Mapping):
        return {name: each if name == "labels" else _without_folders(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    return Path(value).name if A_PATH.match(value) else FOLDERS.sub("", value)


def _read(file: Path) -> dict[str, Any]:
    """The contents of a YAML or JSON file; nothing if there is none."""
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(
            f"'{file}' cannot be read; push the edits/ from a folder of their own to leave it out"
        ) from error
    return content if isinstance(content, dict) else {}
