"""Access the Hugging Face hub, or report within seconds why that is not possible."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from red_lightning.errors import UsageError

ANSWER_SECONDS = 6.0
"""How long the hub may take to answer at all."""
SILENT_SECONDS = 60.0
"""How long it may be silent within a request; its client would wait for ever."""
REMEMBERED_SECONDS = 60
"""How long at most it is not asked again whether it answers."""
SHIPPED = {"quickstart": Path(__file__).parent / "quickstart" / "backbone"}
"""Backbones that ship with the package, by name."""


def local_folder(name: str) -> Path | None:
    """The folder that a name means (a shipped backbone's, or any other), or None if it is the id of a hub repository.

    Raises:
        UsageError: The name can only be a folder, and there is none.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~", "runs/")) or name.count("/") > 1:
        raise UsageError(f"the folder '{name}' does not exist; give an existing folder or a hub id such as 'org/name'")
    return None


def offline() -> bool:
    """Whether the hub cannot be asked: the user said so, or it does not answer within seconds."""
    return constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT, time.monotonic() // REMEMBERED_SECONDS)


@lru_cache(1)
def _answers(endpoint: str, now: float) -> bool:
    """Whether the hub answers, whatever it says; asked once for each value of ``now``."""
    session: Any = get_session()
    session.timeout = SILENT_SECONDS
    try:
        session.head(endpoint, timeout=ANSWER_SECONDS)
    except (HTTPError, OSError):
        return False
    return True


@contextmanager
def cut_off(when: bool) -> Iterator[None]:
    """Keep the hub's clients off the network: where nothing answers they retry for half a minute."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or when
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def explained(kind: str, name: str, revision: str | None = None) -> Iterator[None]:
    """Turn the hub's refusals into one sentence each.

    Args:
        kind: What is loaded, for the sentence: ``backbone`` or ``data set``.
        name: Its hub id.
        revision: The branch, tag or commit asked for.

    Raises:
        UsageError: In place of the hub client's exceptions.
    """
    try:
        yield
    except (GatedRepoError, RepositoryNotFoundError, HfHubHTTPError) as error:
        raise UsageError(_refusal(kind, name, revision, error)) from error
    except HFValidationError as error:
        raise UsageError(f"'{name}' is neither a folder nor a hub id of the form 'org/name'") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError) as error:
        answer = getattr(error.__cause__, "response", None)  # what the client calls unreachable may be a plain 404
        missing = answer is not None and answer.status_code == 404
        raise UsageError(_no_files(kind, name) if missing else unreachable(kind, name)) from error
    except EntryNotFoundError as error:
        raise UsageError(_no_files(kind, name)) from error


def unreachable(kind: str, name: str) -> str:
    """The sentence for a hub that cannot be asked."""
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
    return (
        f"the {kind} '{name}' is not on this machine and {why}; "
        f"check the connection, or download it elsewhere and give its folder"
    )


def _no_files(kind: str, name: str) -> str:
    return f"the hub repository '{name}' does not exist or holds no {kind} (a file it needs is missing); check the id"


def _refusal(kind: str, name: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, RevisionNotFoundError):
        return f"the {kind} '{name}' has no revision '{revision}'; leave revision out for its main branch"
    if isinstance(error, GatedRepoError):
        return (
            f"the {kind} '{name}' is gated: accept its conditions at {constants.ENDPOINT}/{name} "
            "and log in with `hf auth login` (or set HF_TOKEN)"
        )
    if isinstance(error, RepositoryNotFoundError):
        private = "" if os.environ.get("HF_TOKEN") else "; if it is private, log in with `hf auth login`"
        return f"the {kind} '{name}' does not exist, neither as a folder nor on {constants.ENDPOINT}{private}"
    if isinstance(error, EntryNotFoundError):
        return _no_files(kind, name)
    return f"the hub refused the {kind} '{name}': {str(error).splitlines()[0]}"
