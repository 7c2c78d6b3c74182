"""``push``: a run's edits, or the model that they are merged into, on the hub."""

from pathlib import Path
from typing import Literal


def push(
    edits: str,
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
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Push edits or the merged model to the hub, in one commit with a model card that is written from the run.

    For example: push runs/mine --to me/mine --dry_run true --card card.md shows what would be pushed and writes the
    card; once it has been edited, push runs/mine --to me/mine --card card.md pushes. Log in first with hf auth login,
    or set HF_TOKEN. Folders of this machine are named nowhere in what is pushed.

    Args:
        edits: A run's folder, its edits/ folder, or a folder of imported or combined edits.
        to: The hub repository, such as org/name; it is made if need be.
        format: "edits" pushes kilobytes, which need the backbone; "merged" a whole checkpoint for plain transformers.
        backbone: The backbone's hub id, where the edits name a folder of this machine. Its architecture is compared
            now, its weights when somebody loads the edits.
        private: Make a new repository private, and refuse one that is public.
        branch: Where the commit goes; a new branch begins at main.
        message: The commit's message.
        license: The licence for the card, such as apache-2.0; null for what the backbone's own card states.
        card: The card to push, as a file that you have edited. With --dry_run true it is written if there is none.
        overwrite: Replace all that the repository holds, whatever it is.
        scratch: A folder with room for the merged model, which is written there first and then removed; null for the
            system's folder for temporary files.
        dry_run: Print the card and the files, and push nothing.
        trust: Packages whose own methods may be imported, such as my_package: their code runs. Only edits of a method
            that is not part of red_lightning need it.

    Raises:
        UsageError: The edits cannot be read or folded, or the hub refuses; the repository is then as it was.
    """
    import tempfile

    from red_lightning.export import push as push_edits

    if format == "merged" and not dry_run:
        print(f"writing the merged model to {scratch or tempfile.gettempdir()} first; it is removed afterwards")
    done = push_edits(
        edits, to, format, backbone, private, branch, message, license, card, overwrite, scratch, dry_run, trust
    )
    if dry_run:
        print(done.card if card is None else f"the card is {card}")
    for name, size in done.files.items():
        print(f"{'would push' if dry_run else 'pushed'} {name} ({size:,} bytes)")
    for name in done.deleted:
        print(f"deleted {name}")
    if not dry_run:
        print(f"{done.url} is at commit {done.commit}" + ("" if done.changed else ", which had all of this already"))
        print(f"load it with {done.load}")
