"""A model repository on the hub: its files, what may be replaced, and one commit for all files."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from red_lightning import hub
from red_lightning.errors import UsageError, first_line

BESIDES = (".gitattributes", ".gitignore", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "USE_POLICY.md")
"""Files that say nothing of what a repository holds."""

RECORD_OF = {"edits": "edits.json", "merged": "config.json"}
"""The file that tells what is held, by format."""

Files = Mapping[str, Path | bytes]
"""What is pushed: by its name in the repository, a file or its contents."""

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class Remote(NamedTuple):
    """A repository on the hub.

    Attributes:
        name: Its id.
        branch: The branch to push to.
        exists: Whether there is such a repository.
        has_branch: Whether it has that branch.
        head: The commit to build on; None if there is none.
        files: What it holds there.
    """

    name: str
    branch: str
    exists: bool
    has_branch: bool
    head: str | None
    files: frozenset[str]


def find_remote(name: str, branch: str, private: bool) -> Remote:
    """Log in, and look at the repository to push to; nothing is changed.

    Args:
        name: Its id, ``org/name``.
        branch: The branch to push to; it need not exist.
        private: Whether what is pushed must stay private.

    Raises:
        UsageError: The hub cannot be reached, there is no valid token, its user may not write there, or the repository
            is public but must not be.
    """
    if hub.offline():
        raise UsageError(_unreachable(name))
    with explained(name):
        api = HfApi()
        user = api.whoami()
        allowed = [user["name"], *(org["name"] for org in user.get("orgs") or [])]
        if user.get("type") == "user" and name.split("/")[0] not in allowed:
            raise UsageError(
                f"the token's user cannot write to '{name}', but to {', '.join(f'{each}/...' for each in allowed)}; "
                "choose another --to, or log in as another user with `hf auth login`"
            )
        try:
            info = api.model_info(name, revision=branch)
            has_branch = True
        except RevisionNotFoundError:
            info, has_branch = api.model_info(name), False
        except RepositoryNotFoundError:
            return Remote(name, branch, False, branch == "main", None, frozenset())
    if private and not info.private:
        raise UsageError(
            f"'{name}' exists and is public; choose another --to, or make it private in its settings on the hub first"
        )
    return Remote(name, branch, True, has_branch, info.sha, frozenset(file.rfilename for file in info.siblings or ()))


def refuse_foreign(remote: Remote, format: Literal["edits", "merged"]) -> None:
    """Refuse a repository that holds something else than edits, or than a model.

    Raises:
        UsageError: It does.
    """
    held = sorted(remote.files - {*BESIDES})
    if held and (RECORD_OF[format] not in held or any(RECORD_OF[other] in held for other in {*RECORD_OF} - {format})):
        shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
        raise _holds(remote, f"something else ({shown})")


def replaced(remote: Remote, files: Files, overwrite: bool) -> list[str]:
    """What a push deletes, besides what it writes anew: weights of an earlier push, and with ``overwrite`` all else.

    Raises:
        UsageError: The repository holds edits of another backbone, or another model.
    """
    rest = sorted(remote.files - set(files))
    if overwrite:
        return [name for name in rest if name not in BESIDES]
    for name in RECORD_OF.values():
        if name in files and name in remote.files:
            _refuse_other(remote, _json_of(remote, name), _contents(files[name]))
    return [name for name in rest if name.endswith((".safetensors", ".safetensors.index.json"))]


def commit(remote: Remote, files: Files, deleted: list[str], message: str, private: bool) -> tuple[str, str]:
    """Push all files in one commit: the branch has either all of them or is as it was.

    Args:
        remote: The repository; it and the branch are made if need be.
        files: What it shall hold.
        deleted: What it shall hold no more.
        message: The commit's message.
        private: Whether a new repository is private.

    Returns:
        The repository's address, and the commit.

    Raises:
        UsageError: The hub refuses, cannot be reached any more, or somebody else has pushed meanwhile.
    """
    with explained(remote.name):
        api = HfApi()
        if not remote.exists:
            api.create_repo(remote.name, private=private, exist_ok=True)
        if not remote.has_branch:
            api.create_branch(remote.name, branch=remote.branch, revision=remote.head, exist_ok=True)
        added = [CommitOperationAdd(name, _payload(content)) for name, content in files.items()]
        removed = [CommitOperationDelete(name) for name in deleted]
        done = api.create_commit(
            remote.name,
            [*added, *removed],
            commit_message=message,
            revision=remote.branch,
            parent_commit=remote.head,
        )
    return f"{constants.ENDPOINT}/{remote.name}", done.oid


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the hub's refusals of a push into one sentence each; none of them holds the token.

    Raises:
        UsageError: In place of the hub client's exceptions.
    """
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise UsageError(f"pushing to '{name}' needs a token of the hub: {LOGIN}") from error
    except OfflineModeIsEnabled as error:
        raise UsageError(_unreachable(name)) from error
    except HfHubHTTPError as error:
        raise UsageError(_refusal(name, error)) from error
    except ValueError as error:  # such as the hub's complaints about the card's metadata
        raise UsageError(f"nothing was pushed to '{name}': {' '.join(str(error).split())[:300]}") from error
    except (HTTPError, OSError, RuntimeError) as error:  # the last is of hf_xet, which sends large files
        raise UsageError(
            f"the connection to {constants.ENDPOINT} broke off ({type(error).__name__}), and '{name}' is as it was "
            "unless the commit appears there; push again"
        ) from error


def _unreachable(name: str) -> str:
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
    return (
        f"nothing was pushed to '{name}': {why}; check the connection, or see what would be pushed with --dry_run true"
    )


def _refusal(name: str, error: HfHubHTTPError) -> str:
    status, said = error.response.status_code, (error.server_message or first_line(error)).strip().rstrip(".")
    reasons = {
        401: f"the hub does not accept the token, or the token may not see '{name}': {LOGIN}",
        403: f"the token may not write to '{name}' ({said}): use one with the role write ({LOGIN}), or another --to",
        404: f"'{name}' is not on the hub or was removed meanwhile; check --to and push again",
        409: f"'{name}' is in the way or being changed ({said}); push again, or choose another --to",
        412: f"'{name}' was changed by somebody else meanwhile; push again to build on that",
        413: f"the hub does not take files as large as those for '{name}' ({said}); push --format edits",
        429: f"the hub takes no more requests for now ({said}); push to '{name}' again later",
    }
    return reasons.get(status, f"the hub refused the push to '{name}' with status {status}: {said}")


def _refuse_other(remote: Remote, theirs: Any, ours: Mapping[str, Any]) -> None:
    if not isinstance(theirs, dict):
        raise _holds(remote, "a damaged file of this kind")
    if "fingerprint" in ours:
        if theirs.get("fingerprint") != ours["fingerprint"]:
            raise _holds(remote, f"edits of another backbone, {str(theirs.get('backbone'))[:100]!r}")
        return
    for name, value in ours.items():
        is_size = type(value) is int and name in theirs  # such as n_layer, which is num_hidden_layers elsewhere
        if (is_size or name == "architectures") and theirs.get(name) != value:
            raise _holds(remote, f"another model, whose {name} is {str(theirs.get(name))[:100]} and not {value}")


def _holds(remote: Remote, what: str) -> UsageError:
    way = "choose another --to, or give --overwrite true to replace all of it"
    return UsageError(f"'{remote.name}' holds {what}; {way}")


def _json_of(remote: Remote, name: str) -> Any:
    with explained(remote.name):
        path = hf_hub_download(remote.name, name, revision=remote.head)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return None


def _contents(content: Path | bytes) -> Any:
    return json.loads(content if isinstance(content, bytes) else content.read_bytes())


def _payload(content: Path | bytes) -> str | bytes:
    return content if isinstance(content, bytes) else str(content)
