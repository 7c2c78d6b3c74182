"""``push``: an adapter or a merged model on the hub, with a model card."""

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
    """Push an adapter or the merged model to the hub, in one commit with a model card.

    The first example prints the files and writes the card for you to edit. The second pushes them. Log in with
    hf auth login or set HF_TOKEN. Paths of this machine are removed from what is pushed.

        push runs/mine --to me/mine --dry_run true --card card.md
        push runs/mine --to me/mine --card card.md

    Args:
        edits: A run's folder, its edits/ folder, or the folder of an imported or combined adapter.
        to: Hub repository, such as org/name. It is created if it does not exist.
        format: "edits" pushes the adapter, a few hundred kilobytes. "merged" pushes a standard checkpoint.
        backbone: Hub id of the backbone, needed if the adapter names a local folder. Its architecture is compared now,
            its weights when somebody loads the adapter.
        private: Create a private repository, and refuse an existing public one.
        branch: Branch of the commit. A new branch starts at main.
        message: Commit message.
        license: Licence for the card, such as apache-2.0. Default: the licence in the backbone's card.
        card: Markdown file to push as the card. With --dry_run true it is written if it does not exist.
        overwrite: Replace all files of the repository.
        scratch: Folder for the merged model while it is pushed. It is removed afterwards. Default: the system's
            temporary folder.
        dry_run: Print the card and the files, and push nothing.
        trust: Packages to import custom methods from, such as my_package. Their code runs on this machine. Needed only
            for adapters of methods outside red_lightning.

    Raises:
        UsageError: The adapter cannot be read or merged, or the hub refuses. The repository is unchanged then.
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
