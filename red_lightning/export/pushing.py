"""Push an adapter or a merged model to the hub: files and a model card in one commit."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from huggingface_hub import metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from yaml import YAMLError

from red_lightning import hub
from red_lightning.adapters.edited import find_backbone, find_edits, load_backbone
from red_lightning.adapters.file_format import read_edits
from red_lightning.atomic_files import write_whole
from red_lightning.backbones.loading import BackboneOptions
from red_lightning.errors import UsageError, cannot_write, first_line
from red_lightning.export.card_metadata import About
from red_lightning.export.card_usage import loading_line
from red_lightning.export.hub_repository import commit, find_remote, refuse_foreign, replaced
from red_lightning.export.merged_checkpoint import export_merged
from red_lightning.export.model_card import write_card
from red_lightning.export.publishable import licence_of, public_record, published_backbone, trained_by

PLACES = ("_name_or_path", "name_or_path")
"""Where transformers' JSON files name the folder that something was loaded from."""


class Pushed(NamedTuple):
    """What was pushed, or would be.

    Attributes:
        files: Bytes by name.
        deleted: Names of what the repository no longer holds.
        card: The text of ``README.md``.
        load: The line that loads it.
        url: The repository's address; None of a dry run.
        commit: The commit; None of a dry run.
        changed: Whether the repository did not hold all of that already.
    """

    files: dict[str, int]
    deleted: list[str]
    card: str
    load: str
    url: str | None
    commit: str | None
    changed: bool


def push(
    edits: str | Path,
    to: str,
    format: Literal["edits", "merged"] = "edits",
    backbone: str | None = None,
    private: bool = False,
    branch: str = "main",
    message: str | None = None,
    license: str | None = None,
    card: Path | None = None,
    overwrite: bool = False,
    scratch: Path | None = None,
    dry_run: bool = False,
    trust: Sequence[str] = (),
) -> Pushed:
    """Push edits or a merged model to the hub, with a model card.

    Folders of this machine are left out of what is pushed; of files of data, the names stay. The token is the hub
    client's own (``hf auth login`` or ``HF_TOKEN``).

    Args:
        edits: A run's folder, its ``edits`` folder, or any folder of edits.
        to: The hub repository, ``org/name``; it is made if need be.
        format: ``edits`` pushes ``edits.safetensors`` and ``edits.json``; ``merged`` what
            :func:`~red_lightning.export.merged_checkpoint.export_merged` writes.
        backbone: The backbone's hub id, where the edits name a folder. Its architecture is compared here, its weights
            when the edits are loaded.
        private: Make a new repository private, and refuse one that is public.
        branch: Where the commit goes; a new branch begins at main.
        message: The commit's message; None for one that names the format.
        license: What the card states in place of the licence that the backbone's card states.
        card: The card to push. With ``dry_run`` a file that does not exist is written, to be edited and pushed.
        overwrite: Replace what the repository holds, whatever it is.
        scratch: A folder with room for the merged model meanwhile; None for that of temporary files.
        dry_run: Push nothing, and look at no repository.
        trust: Packages whose own methods may be imported: merging runs their code.

    Returns:
        What was pushed.

    Raises:
        UsageError: The edits or the card cannot be read, the edits cannot be folded, or the hub refuses. The repository
            is then as it was.
    """
    _require_id(to)
    folder = find_edits(edits)
    if (folder / "config.json").is_file() and not (folder / "edits.json").is_file():
        raise UsageError(
            f"'{edits}' is a model without edits; name the run's folder, with --format merged for the model"
        )
    tensors, record = read_edits(folder)
    name, base_commit = published_backbone(record, backbone)
    public = public_record(record, name, base_commit, trust)
    run = trained_by(folder)
    own = None if card is None or (dry_run and not card.exists()) else _read_card(card)
    remote = None if dry_run else find_remote(to, branch, private)
    licence = {"license": license} if license else licence_of(name, base_commit)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    del tensors
    place = None if backbone is None or _is_here(record["backbone"]) else backbone
    if remote is not None and not overwrite:
        refuse_foreign(remote, format)  # before the work of merging
    with ExitStack() as stack:
        merged = None
        files: dict[str, Path | bytes] = {
            "edits.safetensors": folder / "edits.safetensors",
            "edits.json": (json.dumps(public, indent=2) + "\n").encode(),
        }
        if format == "merged":
            folded = stack.enter_context(_folder_in(scratch)) / "merged"
            merged = export_merged(folder, folded, place, weights=not dry_run, trust=trust)
            _forget_places(merged.folder, name)
            files = {path.name: path for path in sorted(merged.folder.iterdir())}
        other = None if branch == "main" else branch
        about = About(to, public, shapes, run.settings, run.results, licence, _parameters(public), merged, other, trust)
        text = own or write_card(about)
        files["README.md"] = text.encode()
        sizes = {key: len(each) if isinstance(each, bytes) else each.stat().st_size for key, each in files.items()}
        if merged and dry_run:
            sizes["model*.safetensors"] = merged.size
        load = loading_line(to, public, merged, other)
        if remote is None:
            if card is not None and own is None:
                _write_card(card, text)
            return Pushed(sizes, [], text, load, None, None, False)
        deleted = replaced(remote, files, overwrite)
        url, oid = commit(remote, files, deleted, message or f"Push {format} of {record['method']['name']}", private)
    return Pushed(sizes, deleted, text, load, url, oid, oid != remote.head)


def _require_id(to: str) -> None:
    try:
        validate_repo_id(to)
    except HFValidationError as error:
        raise UsageError(f"--to is '{to}', but must be a hub id such as 'org/name': {first_line(error)}") from error
    if to.count("/") != 1:
        raise UsageError(f"--to is '{to}', but must be a hub id such as 'org/name'")


def _is_here(backbone: str) -> bool:
    """Whether a backbone is a folder of this machine."""
    try:
        return hub.local_folder(backbone) is not None
    except UsageError:  # it was one
        return False


def _parameters(record: Mapping[str, Any]) -> int | None:
    """How many parameters the backbone has; None if its configuration cannot be read."""
    try:
        source, _ = find_backbone(record)
        backbone = load_backbone(source, BackboneOptions(), record, meta=True)
    except UsageError:
        return None
    return sum(parameter.numel() for parameter in backbone.parameters())


@contextmanager
def _folder_in(scratch: Path | None) -> Iterator[Path]:
    """A folder for the merged model, which goes with it."""
    try:
        made = TemporaryDirectory(prefix="red_lightning_", dir=scratch)
    except OSError as error:
        raise cannot_write("the merged model", error, "give another folder with --scratch") from error
    with made as name:
        yield Path(name)


def _forget_places(folder: Path, backbone: str) -> None:
    """Name the backbone by its hub id where a file of transformers names the folder that it was loaded from."""
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if named := {key for key in PLACES if isinstance(content, dict) and key in content}:
            content |= dict.fromkeys(named, backbone)
            file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_card(file: Path) -> str:
    """A card that somebody has written."""
    try:
        text = file.read_text(encoding="utf-8")
        metadata_load(file)
    except OSError as error:
        raise UsageError(
            f"the card '{file}' cannot be read: {error.strerror}; write one with --dry_run true"
        ) from error
    except (ValueError, YAMLError) as error:
        raise UsageError(
            f"the card '{file}' has metadata that are no YAML of a model card: {first_line(error)}"
        ) from error
    return text


def _write_card(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        raise cannot_write(f"the card '{file}'", error, "give another file with --card") from error
